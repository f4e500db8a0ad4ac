"""Signed links: an address that opens one object for a short while, without a key.

For what a browser shows by itself (a contact sheet in an `<img>`) and for what is handed to another machine
(weights). The signature is over the path and the end of its life; the secret is the installation's own, made at
first use and kept in the database, so that every server of one installation honours the others' links.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Control

LINK_LIFE = timedelta(minutes=15)
"""Long enough to open a page and to begin a download, too short to be worth passing on."""

_CONTROL = "link signing"


class LinkRefused(Exception):
    """The link was not signed here, was changed, or has ended."""


@dataclass(frozen=True)
class SignedLink:
    """A link and when it ends. The address is a bearer secret until then: never log or store it."""

    address: str = field(repr=False)
    expires_at: datetime


class LinkSigner:
    """Signs paths and checks signatures with one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, path: str, now: datetime, life: timedelta = LINK_LIFE) -> SignedLink:
        """`path` with the end of its life and the signature as its query."""
        expires = int((now + life).timestamp())
        address = f"{path}?expires={expires}&signature={self._signature(path, expires)}"
        return SignedLink(address, datetime.fromtimestamp(expires, UTC))

    def check(self, path: str, expires: str, signature: str, now: datetime) -> None:
        """Raise LinkRefused unless this very path was signed and its life goes on."""
        plain = expires.isascii() and expires.isdigit() and len(expires) <= 12
        if not plain or not hmac.compare_digest(
            self._signature(path, int(expires)).encode(), signature.encode("utf-8", "replace")
        ):
            raise LinkRefused("this link was not signed here. Ask for a new one")
        if now.timestamp() >= int(expires):
            raise LinkRefused("this link has ended. Ask for a new one")

    def _signature(self, path: str, expires: int) -> str:
        digest = hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def link_signer(database: Database, now: datetime) -> LinkSigner:
    """The signer of this installation; its secret is made where there is none yet."""
    with database.read() as session:
        row = session.get(Control, _CONTROL)
    if row is None:
        row = _made(database, now)
    return LinkSigner(base64.b64decode(row.value["secret"]))


def _made(database: Database, now: datetime) -> Control:
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    with database.begin() as session:
        # Two servers that start at once must agree: the first one's secret stands.
        row = {"name": _CONTROL, "value": {"secret": secret}, "changed_by": "api", "changed_at": now}
        insert_unless_there(session, Control, ["name"], [row])
        return session.get_one(Control, _CONTROL)
