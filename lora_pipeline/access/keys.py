"""Keys of the HTTP interface: made once, shown once, kept as a hash.

A key has 256 random bits, so that a plain SHA-256 is enough: there is nothing to guess and nothing to slow down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select

from lora_pipeline.access.callers import Caller
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ApiKey, AuditEntry
from lora_pipeline.image_sets.models import ensure_user

PREFIX = "lora_"
"""So that people and secret scanners know one when they see it."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?")
_USER_ID_LENGTH = 64


class KeyRefused(ValueError):
    """The key cannot be made or revoked; the message says why and what to do."""


@dataclass(frozen=True)
class CreatedKey:
    """A new key. It is in no other place than here: whoever loses it makes another."""

    name: str
    key: str = field(repr=False)


def create_key(
    database: Database, name: str, *, user_id: str | None, actor: str, now: datetime
) -> CreatedKey:
    """Make a key for one user, or an administrator's where `user_id` is None. Raises KeyRefused.

    A user who is not known yet is made, so that the first upload of a new customer needs nothing else.
    """
    if not _NAME.fullmatch(name):
        raise KeyRefused(
            f"got the name {name!r}; expected letters, digits, spaces, '.', '_' and '-', at most 100"
        )
    if user_id is not None and not (0 < len(user_id) <= _USER_ID_LENGTH and user_id.isprintable()):
        raise KeyRefused(f"got the user {user_id!r}; expected 1 to {_USER_ID_LENGTH} printable characters")
    key = PREFIX + secrets.token_urlsafe(32)
    with database.begin() as session:
        if session.scalars(select(ApiKey.id).where(ApiKey.name == name)).one_or_none() is not None:
            raise KeyRefused(
                f"there is, or was, a key named {name!r}. Choose another name: the audit log tells keys apart by it"
            )
        if user_id is not None:
            ensure_user(session, user_id, now)
        session.add(
            ApiKey(
                name=name,
                key_sha256=_hashed(key),
                user_id=user_id,
                is_admin=user_id is None,
                created_by=actor,
                created_at=now,
            )
        )
        session.add(_audit(now, actor, "create key", name))
    return CreatedKey(name, key)


def list_keys(database: Database) -> list[dict[str, Any]]:
    """Every key that was ever made, oldest first, as JSON; never the keys themselves."""
    with database.read() as session:
        return [
            {
                "name": row.name,
                "scope": "admin" if row.is_admin else "user",
                "user": row.user_id,
                "created_by": row.created_by,
                "created_at": row.created_at.isoformat(),
                "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
            }
            for row in session.scalars(select(ApiKey).order_by(ApiKey.id))
        ]


def revoke_key(database: Database, name: str, *, actor: str, now: datetime) -> bool:
    """End a key: the next request with it is refused. False where it had ended before. Raises KeyRefused."""
    with database.begin() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.name == name).with_for_update()).one_or_none()
        if row is None:
            raise KeyRefused(f"there is no key named {name!r}. See them: lora-pipeline api-keys list")
        if row.revoked_at is not None:
            return False
        row.revoked_at = now
        session.add(_audit(now, actor, "revoke key", name))
        return True


def caller_with(database: Database, key: str) -> Caller | None:
    """Whose key this is; None for one that is unknown or revoked."""
    with database.read() as session:
        row = session.execute(
            select(ApiKey.name, ApiKey.user_id, ApiKey.is_admin).where(
                ApiKey.key_sha256 == _hashed(key), ApiKey.revoked_at.is_(None)
            )
        ).one_or_none()
    if row is None:
        return None
    return Caller(f"key:{row.name}", row.user_id, row.is_admin)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _audit(now: datetime, actor: str, action: str, name: str) -> AuditEntry:
    return AuditEntry(at=now, actor=actor, action=action, subject=f"key {name}", details={})
