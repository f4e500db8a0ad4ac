"""The money guard's switches: pausing and resuming submissions, and what has been started today."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, Control, TrainingRun

_SUBMISSIONS = "submissions"


@dataclass(frozen=True)
class SubmissionSwitch:
    """Whether new trainings may start, and who decided so."""

    paused: bool
    reason: str
    changed_by: str


@dataclass(frozen=True)
class StartedToday:
    """Paid (not simulated) trainings started since midnight UTC."""

    count: int
    cost: float
    """Estimated US dollars."""


def pause_submissions(database: Database, *, reason: str, actor: str, now: datetime) -> None:
    """Start nothing new from now on; what runs is followed to its end."""
    with database.begin() as session:
        set_switch(session, paused=True, reason=reason, actor=actor, now=now)


def resume_submissions(database: Database, *, actor: str, now: datetime) -> None:
    """Let trainings start again."""
    with database.begin() as session:
        set_switch(session, paused=False, reason="", actor=actor, now=now)


def submission_switch(session: Session, *, lock: bool = False) -> SubmissionSwitch:
    """The switch as it stands. With `lock`, whoever starts a training waits here for the one before:
    that is what makes the daily caps exact with several submitters."""
    if lock:
        _ensure_row(session)
    row = session.get(Control, _SUBMISSIONS, with_for_update=lock)
    if row is None or not row.value.get("paused"):
        return SubmissionSwitch(False, "", row.changed_by if row else "")
    return SubmissionSwitch(True, str(row.value.get("reason", "")), row.changed_by)


def set_switch(session: Session, *, paused: bool, reason: str, actor: str, now: datetime) -> None:
    """Set the switch inside the caller's transaction, with its entry in the audit log."""
    _ensure_row(session)
    row = session.get_one(Control, _SUBMISSIONS, with_for_update=True)
    row.value = {"paused": paused, "reason": reason}
    row.changed_by, row.changed_at = actor, now
    action = "pause submissions" if paused else "resume submissions"
    session.add(
        AuditEntry(at=now, actor=actor, action=action, subject="submissions", details={"reason": reason})
    )


def started_today(session: Session, now: datetime) -> StartedToday:
    """What the daily caps count: every real creation request that may have left since midnight UTC."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    count, cost = session.execute(
        select(func.count(), func.coalesce(func.sum(TrainingRun.estimated_cost), 0.0)).where(
            TrainingRun.post_started_at >= midnight, TrainingRun.simulated.is_(False)
        )
    ).one()
    return StartedToday(int(count), float(cost or 0.0))


def _ensure_row(session: Session) -> None:
    row = {"name": _SUBMISSIONS, "value": {}, "changed_by": "", "changed_at": datetime.now(UTC)}
    insert_unless_there(session, Control, ["name"], [row])
