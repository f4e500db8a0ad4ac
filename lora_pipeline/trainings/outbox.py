"""Asset events owed to Dagster: written with the change they report, emitted in batches, acknowledged later.

Dagster stores a tick's events before its cursor. A tick therefore claims a batch under a fresh token and
returns the token as its cursor; the next tick gets that cursor back only if the events were stored, and
acknowledges exactly the rows of that token. A tick that was cut leaves its claim unacknowledged, and the
rows are claimed again: an event may come twice, never not at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import OutboxEvent

# A tick writes about 60 events a second after its evaluation: 300 keep a tick at a few seconds.
BATCH = 300


@dataclass(frozen=True)
class AssetEvent:
    """One event about one asset: what happened and the facts to show with it."""

    event_id: str
    """Stable: the same change always gives the same id, so that writing it twice is one event."""
    asset_key: str
    partition: str | None
    kind: str
    """`materialisation` or `observation`."""
    facts: dict[str, Any]


@dataclass(frozen=True)
class ClaimedBatch:
    """Events to emit now, and the token that acknowledges them."""

    token: str
    events: tuple[AssetEvent, ...]


def owe(session: Session, events: Sequence[AssetEvent], now: datetime) -> None:
    """Write events inside the caller's transaction; those already written are left as they are."""
    rows = [
        {
            "event_id": event.event_id,
            "asset_key": event.asset_key,
            "partition": event.partition,
            "payload": {"kind": event.kind, "facts": event.facts},
            "created_at": now,
        }
        for event in {event.event_id: event for event in events}.values()
    ]
    insert_unless_there(session, OutboxEvent, ["event_id"], rows)


def acknowledge(database: Database, token: str | None, now: datetime) -> int:
    """Mark the rows claimed under `token` as stored by Dagster; how many there were."""
    if not token:
        return 0
    with database.begin() as session:
        return changed_rows(
            session,
            update(OutboxEvent)
            .where(OutboxEvent.claim_token == token, OutboxEvent.acknowledged_at.is_(None))
            .values(acknowledged_at=now),
        )


def claim(database: Database, limit: int = BATCH) -> ClaimedBatch | None:
    """The oldest owed events under a fresh token, or None where nothing is owed.

    Only one sensor emits, so every unacknowledged row is free to claim: an older claim on it means
    that the tick which made it was cut.
    """
    token = uuid.uuid4().hex
    with database.begin() as session:
        rows = session.scalars(
            select(OutboxEvent)
            .where(OutboxEvent.acknowledged_at.is_(None))
            .order_by(OutboxEvent.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            row.claim_token = token
    if not rows:
        return None
    return ClaimedBatch(
        token,
        tuple(
            AssetEvent(row.event_id, row.asset_key, row.partition, row.payload["kind"], row.payload["facts"])
            for row in rows
        ),
    )


def owed(database: Database, older_than: datetime | None = None) -> int:
    """How many events Dagster has not been given yet (created before `older_than`, if given)."""
    question = select(func.count()).select_from(OutboxEvent).where(OutboxEvent.acknowledged_at.is_(None))
    if older_than is not None:
        question = question.where(OutboxEvent.created_at < older_than)
    with database.read() as session:
        return session.scalar(question) or 0
