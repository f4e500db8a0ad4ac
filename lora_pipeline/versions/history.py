"""What was live when: a model's activations as half-open intervals, and the answer for a moment or a day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Activation, ModelVersion


class TimeNotUnderstood(ValueError):
    """A text names no moment or day; the message says what does."""


@dataclass(frozen=True)
class Period:
    """A moment (`end` is None), or everything from `start` up to but not including `end`."""

    start: datetime
    end: datetime | None = None

    def __str__(self) -> str:
        if self.end is None:
            return f"{self.start:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.start:%Y-%m-%d} (UTC)"


@dataclass(frozen=True)
class Served:
    """One version, served from `active_from` up to but not including `active_to` (None: it still is)."""

    version: int
    provider_version: str | None
    active_from: datetime
    active_to: datetime | None
    actor: str
    reason: str
    pinned: bool
    rolled_back: bool
    """Whether a rollback chose it."""


def parse_period(text: str) -> Period:
    """`2026-03-01` is that whole day in UTC; `2026-03-01T12:30`, with or without a zone (UTC then), a moment.

    Raises TimeNotUnderstood.
    """
    wanted = text.strip()
    try:
        start = datetime.combine(date.fromisoformat(wanted), time(), UTC)
        return Period(start, start + timedelta(days=1))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(wanted)
        return Period((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise TimeNotUnderstood(
            f"got {text!r}; expected a day such as 2026-03-01, or a moment such as 2026-03-01T12:30 (UTC) "
            "or 2026-03-01T12:30+02:00"
        ) from None


def history_of(session: Session, model_id: int) -> list[Served]:
    """Every activation of the model, newest first."""
    rows = session.execute(
        select(Activation, ModelVersion.number, ModelVersion.provider_version)
        .join(ModelVersion, ModelVersion.id == Activation.version_id)
        .where(Activation.model_id == model_id)
        .order_by(Activation.id.desc())
    )
    return [
        Served(
            number,
            provider_version,
            row.active_from,
            row.active_to,
            row.actor,
            row.reason,
            row.pinned,
            rolled_back=row.restores_id is not None,
        )
        for row, number, provider_version in rows
    ]


def live_in(history: Iterable[Served], period: Period) -> list[Served]:
    """What was live then, in the given order: at most one for a moment, all that had their turn for a day.

    An activation replaced in the instant in which it began was never live.
    """
    return [served for served in history if _overlaps(served, period)]


def what_was_live(session: Session, model_id: int, when: str, now: datetime) -> tuple[Period, list[Served]]:
    """The period that `when` names and what was live in it, newest first. Raises TimeNotUnderstood."""
    period = parse_period(when)
    if period.start > now:
        raise TimeNotUnderstood(f"got {when!r}, which is still to come; expected a day or moment of the past")
    return period, live_in(history_of(session, model_id), period)


def _overlaps(served: Served, period: Period) -> bool:
    began, ended = served.active_from, served.active_to
    if ended is not None and ended <= began:
        return False
    still_running = ended is None or period.start < ended
    return still_running and (began <= period.start if period.end is None else began < period.end)
