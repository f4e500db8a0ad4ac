"""The first call for a model after a deployment: hold what it serves against the provider, and repair it, once.

However many processes ask at once, one of them checks. Nobody waits longer than the budget: whoever cannot have
the answer in time uses the last known good version, and the check goes on behind them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import BoundedSemaphore, Thread

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insertion
from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import ResolveCheck
from lora_pipeline.versions.drift import Verdict

log = logging.getLogger(__name__)

Check = Callable[[str], Verdict]
"""Compares one model (by its key) with the provider, repairs what a sync may repair, and says how it stands
afterwards. Raises, or says `provider_error`, where the provider could not be asked."""

_AT_ONCE = 8
"""Checks in one process at a time. After a deployment every model is asked for the first time, and with a provider
that hangs each check would keep a thread until its requests time out."""
_slots = BoundedSemaphore(_AT_ONCE)


@dataclass(frozen=True)
class CheckRules:
    """What a first call may cost."""

    deployment: str
    """Which deployment this is: another one checks every model again."""
    budget: timedelta = timedelta(seconds=1.5)
    """How long a call waits for its check. A check is two or three requests of about 150 ms."""
    retry_after: timedelta = timedelta(seconds=60)
    """When a check without an answer is made again: by then an outage may be over, and calls stay fast meanwhile."""


@dataclass(frozen=True)
class LastCheck:
    """What is known of a model's checks."""

    asked_in: str
    asked_at: datetime
    answered_in: str | None
    answered_at: datetime | None
    verdict: str | None


def is_due(last: LastCheck | None, rules: CheckRules, now: datetime) -> bool:
    """Whether the model is still to be checked in this deployment, and nobody has just begun to."""
    if last is None:
        return True
    if last.answered_in == rules.deployment:
        return False
    return last.asked_in != rules.deployment or last.asked_at <= now - rules.retry_after


def check_in_time(
    database: Database,
    model_id: int,
    model_key: str,
    check: Check,
    rules: CheckRules,
    clock: Callable[[], datetime],
) -> None:
    """Check the model, waiting no longer than the budget. What comes later is written down all the same."""
    if not _slots.acquire(blocking=False):
        return

    def work() -> None:
        try:
            _check_once(database, model_id, model_key, check, rules, clock)
        except Exception as error:  # noqa: BLE001 - nobody is left to raise to; a later call checks again
            log.warning("version check of %s failed: %s: %s", model_key, type(error).__name__, error)
        finally:
            _slots.release()

    # A thread of its own, and a daemon: the claim waits for a writer of the database, the check for the provider,
    # and neither may hold up the caller's answer or the end of the process.
    thread = Thread(target=work, name=f"version check of {model_key}", daemon=True)
    thread.start()
    thread.join(rules.budget.total_seconds())


def _check_once(
    database: Database,
    model_id: int,
    model_key: str,
    check: Check,
    rules: CheckRules,
    clock: Callable[[], datetime],
) -> None:
    with database.begin() as session:
        if not _claim(session, model_id, rules, clock()):
            return
    verdict = check(model_key)
    if verdict is Verdict.PROVIDER_ERROR:
        log.warning("version check of %s got no answer from the provider", model_key)
        return
    with database.begin() as session:
        changed_rows(
            session,
            update(ResolveCheck)
            .where(ResolveCheck.model_id == model_id)
            .values(answered_in=rules.deployment, answered_at=clock(), verdict=verdict.value),
        )


def _claim(session: Session, model_id: int, rules: CheckRules, now: datetime) -> bool:
    """Make the check ours: one statement, so that of several processes exactly one gets it."""
    asked = {"asked_in": rules.deployment, "asked_at": now}
    statement = (
        insertion(session, ResolveCheck)
        .values(model_id=model_id, **asked)
        .on_conflict_do_update(
            index_elements=["model_id"],
            set_=asked,
            where=or_(ResolveCheck.answered_in.is_(None), ResolveCheck.answered_in != rules.deployment)
            & or_(
                ResolveCheck.asked_in != rules.deployment, ResolveCheck.asked_at <= now - rules.retry_after
            ),
        )
        .returning(ResolveCheck.model_id)
    )
    return session.execute(statement).one_or_none() is not None
