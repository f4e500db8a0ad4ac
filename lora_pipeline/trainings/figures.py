"""Figures about the running system, for whoever watches it: how much is open, owed and failing right now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback, OutboxEvent, TrainingRun, WebhookDelivery
from lora_pipeline.trainings.lifecycle import OPEN


@dataclass(frozen=True)
class Figures:
    """Counts and ages, as they are in the database now."""

    open_trainings: dict[str, int]
    """By state; every open state is there, with 0 too."""
    owed_events: int
    oldest_owed_event_seconds: float
    waiting_webhooks: int
    owed_callbacks: int
    failing_callbacks: int
    """Owed, and refused or unanswered at least once."""
    given_up_callbacks: int


def figures(database: Database, now: datetime) -> Figures:
    """Read them; a few indexed counts."""
    count = select(func.count())
    undone = Callback.delivered_at.is_(None), Callback.given_up_at.is_(None)
    with database.read() as session:
        by_state = dict.fromkeys(sorted(state.value for state in OPEN), 0)
        rows = session.execute(
            select(TrainingRun.state, func.count().label("number"))
            .where(TrainingRun.state.in_(OPEN))
            .group_by(TrainingRun.state)
        )
        by_state.update((row.state, row.number) for row in rows)
        unacknowledged = OutboxEvent.acknowledged_at.is_(None)
        owed = session.scalar(count.select_from(OutboxEvent).where(unacknowledged)) or 0
        oldest = session.scalar(select(func.min(OutboxEvent.created_at)).where(unacknowledged))
        waiting = count.select_from(WebhookDelivery).where(WebhookDelivery.handled_at.is_(None))
        callbacks = count.select_from(Callback)
        return Figures(
            open_trainings=by_state,
            owed_events=owed,
            oldest_owed_event_seconds=max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0,
            waiting_webhooks=session.scalar(waiting) or 0,
            owed_callbacks=session.scalar(callbacks.where(*undone)) or 0,
            failing_callbacks=session.scalar(callbacks.where(*undone, Callback.attempts > 0)) or 0,
            given_up_callbacks=session.scalar(callbacks.where(Callback.given_up_at.is_not(None))) or 0,
        )
