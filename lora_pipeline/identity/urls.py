"""Splitting a URL strictly: one reading, or a refusal.

Not `urllib.parse.urlsplit`: it drops tabs and newlines, keeps credentials, and accepts a backslash, over
which browsers and RFC 3986 disagree about the host. What a host or a path *means* is not decided here.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from lora_pipeline.identity.errors import refusal

_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
)
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_EXPECTED = "a URL such as https://host/path"


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an http(s) URL: host in lower case without its trailing dot, path and query still encoded."""

    scheme: str
    host: str
    port: int | None
    """None where it is the scheme's own."""
    path: str
    """With its leading slash, or empty."""
    query: str = field(repr=False)

    @property
    def host_and_port(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def split_url(text: str, meant: str) -> Url:
    """The parts of an absolute http or https URL.

    Raises IdentityError for anything with two readings: credentials, backslashes, control characters,
    a host that is not plain ASCII (spell an international name in its xn-- form), a bad port.
    """
    text = text.strip()
    parts = _SHAPE.fullmatch(text)
    if parts is None or parts["scheme"].lower() not in _DEFAULT_PORTS:
        raise refusal(meant, text, "no http or https URL", _EXPECTED, "Give the whole address.")
    if "\\" in parts["authority"] + parts["path"] or has_control_character(text):
        raise refusal(
            meant,
            text,
            "a URL with a backslash or control character",
            _EXPECTED,
            "Encode it, or copy the address again: programs disagree about what it names.",
        )
    authority: str = parts["authority"]
    if "@" in authority:
        raise refusal(
            meant,
            text,
            "a URL with credentials before its host",
            _EXPECTED,
            "Remove what stands before the @: the host is what follows it.",
        )
    host, _, port_text = authority.partition(":")
    host = host.removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise refusal(
            meant,
            text,
            "a URL whose host is no plain host name",
            "a host of letters, digits, dots, - and _",
            "Spell an international name in its xn-- form; check for a missing or doubled dot.",
        )
    scheme = parts["scheme"].lower()
    return Url(
        scheme, host.lower(), _port(port_text, scheme, text, meant), parts["path"], parts["query"] or ""
    )


def _port(port_text: str, scheme: str, text: str, meant: str) -> int | None:
    if not port_text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
        raise refusal(meant, text, "a URL with a bad port", "a port of 1 to 65535", "Correct or remove it.")
    port = int(port_text)
    return None if port == _DEFAULT_PORTS[scheme] else port


def has_control_character(text: str) -> bool:
    return _CONTROL.search(text) is not None


def percent_decode(encoded: str, *, plus_is_space: bool) -> str | None:
    """`encoded` decoded exactly once, or None where it is not the encoding of any UTF-8 text.

    Raw spaces and raw letters beyond ASCII stand for themselves: there is only one way to read them.
    """
    if _BAD_ESCAPE.search(encoded):
        return None
    if plus_is_space:
        encoded = encoded.replace("+", " ")
    try:
        return unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeError:
        return None
