"""What webhook deliveries lead to: the provider is asked about the training, and the usual transition follows.

A hint moves nothing by itself. It is handled after the answer to its delivery, by whoever gets there first:
the server that received it, or the next status tick. Polling never waits for hints, so a lost one costs time
and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Update, exists, select, update

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, WebhookDelivery
from lora_pipeline.providers.protocol import (
    LeavesWeightsInBucket,
    NotFound,
    ProviderError,
    ProviderUnavailable,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.trainings.lifecycle import FOLLOWED, TrainingState
from lora_pipeline.trainings.looking import look_at_training
from lora_pipeline.trainings.transitions import Moved, observe
from lora_pipeline.trainings.unknown_jobs import AdoptedFromHints, adopt_from_hints, match_by_base

log = logging.getLogger(__name__)

_READ_AT_ONCE = 1_000
_SHOWN_BY = {
    "starting": TrainingState.SUBMITTED,
    "processing": TrainingState.RUNNING,
    "IN_QUEUE": TrainingState.SUBMITTED,
    "IN_PROGRESS": TrainingState.RUNNING,
    "RUNNING": TrainingState.RUNNING,
}
_ORDER = [TrainingState.SUBMITTED, TrainingState.RUNNING]


@dataclass(frozen=True)
class HintsReport:
    """What was done about waiting hints."""

    handled: int = 0
    asked: int = 0
    unknown: tuple[str, ...] = ()
    """Job ids that no run has yet, seen for the first time; they are matched once a run has them."""
    errors: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class _Hints:
    """All waiting hints about one run."""

    run_id: int
    job_id: str
    token: str
    destination: str
    state: TrainingState
    statuses: tuple[str, ...]
    delivery_ids: tuple[int, ...]


def worth_asking(state: TrainingState, status: str) -> bool:
    """Whether a delivery that says `status` can mean news about a run in `state`. Pure.

    Most cannot: polling was first, or an older event came after a newer one.
    """
    if state not in FOLLOWED:
        return False
    shown = _SHOWN_BY.get(status)
    return shown is None or state not in _ORDER or _ORDER.index(shown) > _ORDER.index(state)


def handle_hints(
    database: Database,
    provider: TrainingProvider,
    clock: Callable[[], datetime],
    limit: int,
    *,
    deadline: datetime | None = None,
) -> HintsReport:
    """Ask the provider about every run with waiting hints, the oldest hint first, and apply what it says.

    At most `limit` requests, none after `deadline`, and none after the provider turned out to be away: what
    is left waits for the next round.
    """
    adopted = AdoptedFromHints()
    if isinstance(provider, LeavesWeightsInBucket):
        match_by_base(database, provider.name)
        adopted = adopt_from_hints(database, provider, clock, limit, deadline=deadline)
    unknown = _note_unknown(database, provider.name)
    moved, errors, asked = list(adopted.moved), list(adopted.errors), adopted.asked
    hints = _waiting(database, provider.name)
    idle = [hint for hint in hints if not any(worth_asking(hint.state, status) for status in hint.statuses)]
    _close(database, [one for hint in idle for one in hint.delivery_ids], "nothing new", clock())
    handled = sum(len(hint.delivery_ids) for hint in idle)
    for hint in [hint for hint in hints if hint not in idle][:limit]:
        if deadline is not None and clock() >= deadline:
            break
        asked += 1
        try:
            moved += _ask(database, provider, hint, clock)
        except (ProviderUnavailable, Unauthenticated) as error:
            errors.append(f"hint about {hint.job_id}: {error}")
            break
        handled += len(hint.delivery_ids)
    return HintsReport(handled, asked, tuple(unknown), tuple(errors), tuple(moved))


def _ask(
    database: Database, provider: TrainingProvider, hint: _Hints, clock: Callable[[], datetime]
) -> list[Moved]:
    try:
        job = look_at_training(provider, hint.job_id, hint.token, hint.destination)
    except NotFound:
        # Whether it is lost is decided where its age is known: in following.
        _close(database, hint.delivery_ids, "the provider does not show the training (404)", clock())
        return []
    except (ProviderUnavailable, Unauthenticated):
        raise
    except ProviderError as error:
        _close(database, hint.delivery_ids, str(error), clock())
        return []
    now = clock()
    with database.begin() as session:
        moved = observe(session, {hint.run_id: job}, now)
        change = (
            f"{moved[0].before} → {moved[0].after}" if moved else f"the provider says {job.provider_status}"
        )
        session.execute(_closing(hint.delivery_ids, f"run {hint.run_id}: {change}", now))
    return moved


def _waiting(database: Database, provider: str) -> list[_Hints]:
    with database.read() as session:
        rows = session.execute(
            select(
                WebhookDelivery.id,
                WebhookDelivery.status,
                TrainingRun.id,
                TrainingRun.training_id,
                TrainingRun.token,
                TrainingRun.destination,
                TrainingRun.state,
            )
            .join(
                TrainingRun,
                (TrainingRun.provider == WebhookDelivery.provider)
                & (TrainingRun.training_id == WebhookDelivery.job_id),
            )
            .where(WebhookDelivery.provider == provider, WebhookDelivery.handled_at.is_(None))
            .order_by(WebhookDelivery.id)
            .limit(_READ_AT_ONCE)
        ).all()
    found: dict[int, _Hints] = {}
    for delivery, status, run_id, job_id, token, destination, state in rows:
        before = found.get(run_id)
        found[run_id] = _Hints(
            run_id,
            str(job_id),
            token,
            destination,
            TrainingState(state),
            (*(before.statuses if before else ()), status),
            (*(before.delivery_ids if before else ()), delivery),
        )
    return list(found.values())


def _note_unknown(database: Database, provider: str) -> list[str]:
    """Say once of each delivery that no run has its job: it may be ahead of the answer that names the job."""
    has_run = exists().where(
        TrainingRun.provider == WebhookDelivery.provider, TrainingRun.training_id == WebhookDelivery.job_id
    )
    with database.begin() as session:
        new = session.scalars(
            select(WebhookDelivery)
            .where(
                WebhookDelivery.provider == provider,
                WebhookDelivery.handled_at.is_(None),
                WebhookDelivery.outcome.is_(None),
                ~has_run,
            )
            .order_by(WebhookDelivery.id)
            .limit(_READ_AT_ONCE)
        ).all()
        for delivery in new:
            delivery.outcome = "no training run has this job yet"
    jobs = list(dict.fromkeys(delivery.job_id for delivery in new))
    for job_id in jobs:
        log.warning("Version not found for job ID: %s (kept, and matched once a training run has it)", job_id)
    return jobs


def _close(database: Database, delivery_ids: Iterable[int], outcome: str, now: datetime) -> None:
    ids = list(delivery_ids)
    if ids:
        with database.begin() as session:
            session.execute(_closing(ids, outcome, now))


def _closing(delivery_ids: Iterable[int], outcome: str, now: datetime) -> Update:
    return (
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(list(delivery_ids)))
        .values(handled_at=now, outcome=outcome)
    )
