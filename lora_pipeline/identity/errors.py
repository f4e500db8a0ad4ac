"""The one error of the identity parsers, and how a refused text is shown without its secrets.

Here belongs what every parser's refusal shares. What a refused text *is* (a training id, a short hash …) is
in `kinds`.
"""

import re

_MAX_SHOWN = 160

# What starts the query of a link, however often the link was encoded, or a part of a signature that
# slipped out of its query. Everything from there on is a bearer secret and is never shown.
_QUERY_START = re.compile(
    r"[?#]|%(?:25)*3f|x-amz-|x-goog-|awsaccesskeyid|googleaccessid|signature|key-pair-id|token=|sig=",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"(r8_|whsec_|rpa_|hf_)[A-Za-z0-9+/=_-]+")

# Credentials whose @ was cut off: what follows a host's colon and is no port.
_PASSWORD = re.compile(r"(https?://[^/:]*):(?![0-9]{0,5}(?:/|$))[^/]*", re.IGNORECASE)


class IdentityError(ValueError):
    """A text is not the identifier that was asked for.

    The message says what was got, what was expected and what to do. It is permanent: the same text is
    refused again. It never holds a query, credentials, an API token or an e-mail address.
    """


def refusal(meant: str, text: object, found: str, expected: str, advice: str) -> IdentityError:
    """The error for `text` where a `meant` was expected; `found` names what it is."""
    return IdentityError(f"No valid {meant}: got {shown(text)} ({found}). Expected {expected}. {advice}")


def shown(text: object) -> str:
    """`text` as an error may show it: quoted, shortened, and without its secrets."""
    if not isinstance(text, str):
        return type(text).__name__
    visible = without_secrets(text)
    query_note = " (query not shown)" if _QUERY_START.search(text) else ""
    if len(visible) > _MAX_SHOWN:
        visible = visible[:_MAX_SHOWN] + "…"
    return repr(visible) + query_note


def without_secrets(text: str) -> str:
    """`text` without query, fragment, credentials, API tokens and the names in e-mail addresses."""
    query = _QUERY_START.search(text)
    visible = text[: query.start()] if query else text
    before_at, at, after_at = visible.rpartition("@")
    if at:
        scheme, separator, _ = before_at.partition("://")
        visible = (scheme + separator if separator else "") + "…@" + after_at
    # Plans show hundreds of thousands of values, of which few have anything of the kind.
    if "://" in visible:
        visible = _PASSWORD.sub(r"\1:…", visible)
    return _TOKEN.sub(r"\1…", visible) if "_" in visible else visible


def require_text(value: object, meant: str, expected: str) -> str:
    """`value` where it is a text with something in it.

    A stored NULL or a number is an answer too, hence `object`: it raises IdentityError, never TypeError.
    """
    if not isinstance(value, str):
        raise refusal(
            meant, value, "no text", expected, "Read where the value comes from: it was never filled in."
        )
    if not value.strip():
        raise refusal(
            meant, value, "empty", expected, "Read where the value comes from: it was never filled in."
        )
    return value
