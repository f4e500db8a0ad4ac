"""Which web addresses images may be fetched from: public ones, and the private hosts that a setting names. Pure.

A caller who may name an address could otherwise read through us what only we can reach: a cloud's metadata
service, an admin page on loopback, a database's port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}
_LONGEST = 4096
# Addresses of IPv6 that carry an IPv4 address which some gateway on the way will connect to.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
# All of IPv6 that is the public internet's. Outside of it `is_global` is true of what is not: site-local fec0::/10,
# and 64:ff9b:1::/48, in which a network carries IPv4 addresses in places of its own choice.
_PUBLIC = ipaddress.ip_network("2000::/3")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(ValueError):
    """Nothing is fetched from this address; the message says why."""


@dataclass(frozen=True)
class WebAddress:
    """One address of an image, taken apart."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query as they are sent; the query may hold a signature and is never shown."""
    shown: str
    """Without login, query and fragment: fit for a row and a message."""

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def name(self) -> str:
        """The file's name, as the path ends."""
        return self.shown.rstrip("/").rpartition("/")[2] or "image"


def parse_address(text: str) -> WebAddress:
    """Read an image's address. Raises AddressRefused."""
    parts = _split(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressRefused("its host or port makes no sense") from None
    if parts.scheme not in _PORTS:
        raise AddressRefused("it does not begin with https:// or http://")
    if not host or "%" in host:
        raise AddressRefused("it names no host")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("it carries a login; sign the address instead")
    try:
        ascii_host = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        raise AddressRefused("its host makes no sense") from None
    path = parts.path or "/"
    bare = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    netloc = bare if port is None else f"{bare}:{port}"
    return WebAddress(
        scheme=parts.scheme,
        host=ascii_host,
        port=port if port is not None else _PORTS[parts.scheme],
        target=urlunsplit(("", "", path, parts.query, "")),
        shown=urlunsplit((parts.scheme, netloc, path, "", "")),
    )


def is_public(address: Address) -> bool:
    """Whether the address is a machine of the public internet, whichever way it is written."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC:
        return False
    # `is_global` counts some multicast as global.
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )


def allowed(address: WebAddress, found: Iterable[str], private_hosts: frozenset[str]) -> str:
    """The one of a host's resolved addresses to connect to. Raises AddressRefused.

    All of them must be public: a name that has a public and a private address is one that means to be both.
    """
    resolved = list(found)
    if not resolved:
        raise AddressRefused("its host has no address")
    if f"{address.host}:{address.port}" in private_hosts or address.host in private_hosts:
        return resolved[0]
    for text in resolved:
        try:
            plain = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            raise AddressRefused("its host has no address") from None
        if "%" in text or not is_public(plain):
            raise AddressRefused(
                "its host lies in a private network. Use a public address, or let the host be named in LORA_IMAGE_HOSTS"
            )
    return resolved[0]


def hosts_of(setting: str) -> frozenset[str]:
    """LORA_IMAGE_HOSTS as a set."""
    return frozenset(part.strip().lower() for part in setting.split(",") if part.strip())


def _split(text: str) -> SplitResult:
    if len(text) > _LONGEST:
        raise AddressRefused(f"it is longer than {_LONGEST} characters")
    if not text.isprintable() or " " in text or "\\" in text:
        raise AddressRefused("it contains a space, a backslash or a control character")
    try:
        text.encode()
        return urlsplit(text)
    except ValueError:
        raise AddressRefused("it is no web address") from None


def _inner(address: Address) -> Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _COMPATIBLE and int(address) > 1:
        return ipaddress.IPv4Address(int(address))
    return None
