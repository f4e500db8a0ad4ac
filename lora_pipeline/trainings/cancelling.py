"""Cancelling a training: at once while nothing was paid, otherwise asked of the provider until it says so.

The wish is committed before the provider hears of it, and a cancel that was refused or not answered still
bills: it is asked again at every tick until a terminal state is seen. Where the provider says that the
training succeeded first, that is the truth: the weights are paid for, so they are verified and registered,
and only not served by themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import is_observing, refuse_while_observing
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, ModelVersion, TrainingRun, UserModel
from lora_pipeline.providers.protocol import (
    ProviderError,
    ProviderUnavailable,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.trainings.lifecycle import FOLLOWED, TERMINAL, TrainingState
from lora_pipeline.trainings.runs import locked_run, model_key_of
from lora_pipeline.trainings.transitions import move, observe
from lora_pipeline.versions.activation import Activated, activate_trained

log = logging.getLogger(__name__)

UNSENT = frozenset({TrainingState.READY, TrainingState.PACKED})
"""States in which the provider surely knows nothing and nothing was paid."""


class Cancel(StrEnum):
    """How one wish to cancel stands."""

    CANCELED = "canceled"
    REQUESTED = "requested"
    """The provider took the request and has not ended the training yet: it bills until it says so."""
    UNANSWERED = "unanswered"
    """The wish is committed and the provider did not take it; every tick asks again. It bills until then."""
    WISHED = "wished"
    """Nobody knows yet whether the provider has the training; it is cancelled as soon as it is found."""
    TOO_LATE = "too_late"


@dataclass(frozen=True)
class CancelResult:
    run_id: int
    model_key: str
    outcome: Cancel
    reason: str


@dataclass(frozen=True)
class CancelRound:
    """What one tick did about cancels."""

    asked: int = 0
    ended: tuple[int, ...] = ()
    """Runs that are canceled now."""
    errors: tuple[str, ...] = ()


def cancel_training(
    database: Database, provider: TrainingProvider, run_id: int, actor: str, clock: Callable[[], datetime]
) -> CancelResult:
    """End a training because a person asked; harmless to repeat. Raises TrainingNotFound.

    Trouble with the provider is an outcome (`unanswered`), not an error: the wish is committed by then.
    """
    with database.begin() as session:
        refuse_while_observing(session, f"training run {run_id} was not cancelled")
        run = locked_run(session, run_id)
        model_key = model_key_of(session, run)
        outcome, reason = _wish(session, run, model_key, actor, clock())
        job_id = run.training_id
    if outcome is not Cancel.REQUESTED or job_id is None:
        return CancelResult(run_id, model_key, outcome, reason)
    trouble, state = _ask(database, provider, run_id, job_id, clock)
    if trouble is not None:
        again = f"{trouble}. The cancel is recorded and asked for again at every tick; until then it bills"
        return CancelResult(run_id, model_key, Cancel.UNANSWERED, again)
    return CancelResult(run_id, model_key, *_what_became(state))


def send_due_cancels(
    database: Database,
    provider: TrainingProvider,
    clock: Callable[[], datetime],
    limit: int,
    *,
    deadline: datetime | None = None,
) -> CancelRound:
    """Ask the provider for every cancel that it has not carried out, the longest unasked first.

    At most `limit` requests, none after `deadline`, and none after the provider turned out to be away.
    """
    ended = _end_unsent(database, provider.name, clock())
    errors: list[str] = []
    asked = 0
    for run_id, job_id in _due(database, provider.name, limit):
        if deadline is not None and clock() >= deadline:
            break
        asked += 1
        trouble, state = _ask(database, provider, run_id, job_id, clock)
        if state is TrainingState.CANCELED:
            ended.append(run_id)
        if trouble is not None:
            errors.append(f"cancel of run {run_id}: {trouble}")
        if isinstance(trouble, ProviderUnavailable | Unauthenticated):
            break
    return CancelRound(asked, tuple(ended), tuple(errors))


def activate_unless_cancelled(
    session: Session, run: TrainingRun, model: UserModel, version: ModelVersion, now: datetime
) -> Activated:
    """Serve the verified version of a finalised run, unless we only observe or its cancel came before its success.

    Such a version is paid for, verified and registered, and waits for a person: whoever cancelled did not
    want it served. A model that has no other version shows that it was cancelled, not that it is complete.
    """
    if is_observing(session):
        return Activated(version.id, changed=False, withheld=True)
    if run.cancel_requested_at is None:
        return activate_trained(session, model, version, now)
    if model.completed_at is None:
        model.training_status = "canceled"
        model.failure_reason = (
            f"cancelled too late: the provider had finished. It is registered as V{version.number} and not served; "
            f"serve it with: lora-pipeline activate {model.model_key} {version.number}"
        )
    return Activated(version.id, changed=False, withheld=True)


def _wish(
    session: Session, run: TrainingRun, model_key: str, actor: str, now: datetime
) -> tuple[Cancel, str]:
    """Commit what is wished for a locked run; REQUESTED where the provider is to be asked now."""
    state = TrainingState(run.state)
    if state in TERMINAL:
        outcome = Cancel.CANCELED if state is TrainingState.CANCELED else Cancel.TOO_LATE
        return outcome, f"training run {run.id} has ended already: it is {state}"
    if state is TrainingState.SUCCEEDED or (state is TrainingState.HELD and run.training_id):
        return Cancel.TOO_LATE, _too_late(run, model_key)
    if run.cancel_requested_at is None:
        run.cancel_requested_at = run.updated_at = now
        session.add(
            AuditEntry(
                at=now,
                actor=actor,
                action="cancel training",
                subject=model_key,
                details={"run": run.id, "state": state},
            )
        )
    if state in UNSENT:
        _end(session, run, now, actor)
        return Cancel.CANCELED, "it had not been sent to the provider; nothing was paid"
    if run.training_id is None:
        return Cancel.WISHED, (
            "nobody knows yet whether the provider started it. It is looked for, and cancelled as soon as it is "
            f"found; give it up for good with: lora-pipeline trainings resolve {run.id} --abandon"
        )
    return Cancel.REQUESTED, ""


def _too_late(run: TrainingRun, model_key: str) -> str:
    if run.state == TrainingState.HELD:
        return (
            f"the training succeeded and is paid for; decide with: lora-pipeline trainings resolve {run.id}"
        )
    return (
        "the training has succeeded and is paid for; its weights are being verified. Once it is registered, go back "
        f"with: lora-pipeline rollback {model_key}"
    )


def _end(session: Session, run: TrainingRun, now: datetime, actor: str) -> None:
    run.lease_token = run.lease_until = run.not_before = None
    move(
        session,
        run,
        TrainingState.CANCELED,
        now,
        reason=f"cancelled by {actor} before it was sent to the provider; nothing was paid",
    )


def _ask(
    database: Database, provider: TrainingProvider, run_id: int, job_id: str, clock: Callable[[], datetime]
) -> tuple[ProviderError | None, TrainingState]:
    """Send one cancel and record what the provider answers; the trouble, if any, and the state afterwards."""
    trouble: ProviderError | None = None
    job = None
    try:
        job = provider.cancel_training(job_id)
    except ProviderError as error:
        log.warning("the cancel of run %s (%s) was not taken: %s", run_id, job_id, error)
        trouble = error
    with database.begin() as session:
        now = clock()
        if job is not None:
            observe(session, {run_id: job}, now)
        # What puts it behind the others that wait for an answer.
        session.execute(update(TrainingRun).where(TrainingRun.id == run_id).values(updated_at=now))
        state = session.scalars(select(TrainingRun.state).where(TrainingRun.id == run_id)).one()
    return trouble, TrainingState(state)


def _what_became(state: TrainingState) -> tuple[Cancel, str]:
    if state is TrainingState.CANCELED:
        return Cancel.CANCELED, "the provider has ended it"
    if state in FOLLOWED:
        return (
            Cancel.REQUESTED,
            "the provider took the request and has not ended it yet; it bills until it does",
        )
    return Cancel.TOO_LATE, f"the provider had ended it before: it is {state}"


def _due(database: Database, provider: str, limit: int) -> list[tuple[int, str]]:
    with database.read() as session:
        rows = session.execute(
            select(TrainingRun.id, TrainingRun.training_id)
            .where(
                TrainingRun.provider == provider,
                TrainingRun.state.in_(FOLLOWED),
                TrainingRun.cancel_requested_at.is_not(None),
                TrainingRun.training_id.is_not(None),
            )
            .order_by(TrainingRun.updated_at, TrainingRun.id)
            .limit(limit)
        ).all()
    return [(run_id, job_id) for run_id, job_id in rows if job_id is not None]


def _end_unsent(database: Database, provider: str, now: datetime) -> list[int]:
    """End runs that came back to `packed` (throttled, sent again) after somebody had asked to cancel them."""
    with database.begin() as session:
        runs = session.scalars(
            select(TrainingRun)
            .where(
                TrainingRun.provider == provider,
                TrainingRun.state.in_(UNSENT),
                TrainingRun.cancel_requested_at.is_not(None),
            )
            .order_by(TrainingRun.id)
            .with_for_update()
        ).all()
        for run in runs:
            _end(session, run, now, "an earlier request")
    return [run.id for run in runs]
