"""Requests that their sender may repeat: one `Idempotency-Key`, one effect, one answer.

The answer is kept with the key. A sender who heard nothing sends the same request again and gets it; while the
first is still being answered the second is told to wait; after an error the request may simply be tried again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import IdempotencyKey

ANSWERING = timedelta(minutes=3)
"""A server that died while answering gives the key up by itself after this."""
KEPT = timedelta(days=2)


class StillAnswering(Exception):
    """The same request is being answered right now."""


class KeyUsedOtherwise(Exception):
    """The key came with another request before."""


def fingerprint(request: dict[str, Any]) -> str:
    """What makes two requests the same."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Claim:
    """What became of the attempt to answer a request."""

    answer: dict[str, Any] | None = None
    """What it was answered before; None where it is to be answered now."""
    since: datetime | None = None
    """When somebody began to answer it who did not come to an end: what was done since then was for this request."""


def begin(database: Database, user_id: str, key: str, request: str, now: datetime) -> Claim:
    """Claim the key for this request (its fingerprint), or give the answer that it had.

    Raises StillAnswering and KeyUsedOtherwise.
    """
    row = {"user_id": user_id, "key": key, "request_sha256": request, "created_at": now}
    with database.begin() as session:
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now - KEPT))
        insert_unless_there(session, IdempotencyKey, ["user_id", "key"], [row])
        known = session.scalars(
            select(IdempotencyKey)
            .where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key)
            .with_for_update()
        ).one()
        if known.request_sha256 != request:
            raise KeyUsedOtherwise(
                "this Idempotency-Key came with another request before. Use a new key for a new request"
            )
        if known.answer is not None:
            return Claim(answer=dict(known.answer))
        if known.claimed_until is not None and known.claimed_until > now:
            raise StillAnswering(
                "the same request is being answered. Ask for its progress, or send it again later"
            )
        since = known.created_at if known.claimed_until is not None else None
        if since is None:
            known.created_at = now  # new, or an earlier attempt ended in an error: nothing of it counts
        known.claimed_until = now + ANSWERING
        return Claim(since=since)


def end(database: Database, user_id: str, key: str, answer: dict[str, Any] | None) -> None:
    """Keep the answer, or (None) free the key after an error, so that the request can be tried again."""
    with database.begin() as session:
        known = session.scalars(
            select(IdempotencyKey).where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key)
        ).one_or_none()
        if known is not None:
            known.answer, known.claimed_until = answer, None
