"""Callbacks as people and programs look at them: what was taken, what is owed, what fails and why."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback

Which = Literal["all", "undelivered", "failing"]
"""`undelivered`: not taken yet, for whatever reason. `failing`: of these, what was tried in vain."""


def list_callbacks(database: Database, which: Which, limit: int = 100) -> list[dict[str, Any]]:
    """The newest callbacks, as JSON."""
    question = select(Callback).order_by(Callback.id.desc()).limit(limit)
    if which != "all":
        question = question.where(Callback.delivered_at.is_(None))
    if which == "failing":
        question = question.where(Callback.attempts > 0)
    with database.read() as session:
        return [
            {
                "event_id": row.event_id,
                "kind": row.kind,
                "payload": row.payload,
                "state": _state(row),
                "attempts": row.attempts,
                "last_error": row.last_error,
                "created_at": row.created_at,
                "next_attempt_at": row.next_attempt_at,
                "delivered_at": row.delivered_at,
                "given_up_at": row.given_up_at,
            }
            for row in session.scalars(question)
        ]


def _state(row: Callback) -> str:
    if row.delivered_at is not None:
        return "delivered"
    if row.given_up_at is not None:
        return "given up"
    return "failing" if row.attempts else "owed"
