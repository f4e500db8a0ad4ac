"""Submission: from a packed training to one the provider knows, started exactly once.

The order is what makes it safe: the token is committed with the run, the ZIP is stored under it, the state
becomes `intent` in a transaction of its own, and only then does the one creation request leave. Whatever
dies in between leaves either a run that surely was not sent (`ready`, `packed`) or one of unknown outcome
(`intent`), which `reconciliation` looks for at the provider by its token and never sends again blindly.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import observing_says
from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.providers.protocol import (
    DestinationMissing,
    InsufficientCredit,
    ProviderError,
    Refused,
    Throttled,
    TrainingJob,
    TrainingProvider,
    Unauthenticated,
    UnknownOutcome,
)
from lora_pipeline.trainings.adoption import adopt
from lora_pipeline.trainings.controls import set_switch, started_today, submission_switch
from lora_pipeline.trainings.costs import DailyCaps, over_daily_cap
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.requests import PreparedRequest, make_destination, prepare_request
from lora_pipeline.trainings.transitions import move

log = logging.getLogger(__name__)

ASKED_BY_SENSOR = "sensor"
ASKED_BY_HAND = "materialisation"
"""Opened by materialising `training_zip` alone: materialising `replicate_training` is what submits it."""
_UNSENT = (TrainingState.PACKED, TrainingState.INTENT)
_RETRY_UNAVAILABLE = timedelta(seconds=30)


class Submission(StrEnum):
    """How one attempt to submit ended."""

    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    """The request may have had its effect: reconciliation decides."""
    DEFERRED = "deferred"
    """Surely nothing was started; it will be tried again (throttled, paused, over the daily cap)."""
    REFUSED = "refused"
    """The provider said no for good."""
    TAKEN = "taken"
    """Somebody else submits this run, or has submitted it."""


@dataclass(frozen=True)
class SubmissionResult:
    run_id: int
    outcome: Submission
    training_id: str | None = None
    reason: str | None = None
    retry_after: float | None = None
    """Seconds to wait before the provider is asked for any training: it throttles us."""


@dataclass(frozen=True)
class SubmissionRules:
    """What the settings allow a submission."""

    caps: DailyCaps
    lease: timedelta
    webhook: str | None = None


def submit_training(
    database: Database,
    store: ObjectStore,
    provider: TrainingProvider,
    run_id: int,
    rules: SubmissionRules,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    emit: bool = True,
) -> SubmissionResult:
    """Send one packed training to the provider, at most once.

    `emit=False` where the caller reports the asset's materialisation itself. Raises Unauthenticated (the
    run stays packed) and ObjectStoreError; every other trouble is an outcome.
    """
    if database.observing:
        return SubmissionResult(run_id, Submission.DEFERRED, reason=observing_says("nothing was sent"))
    lease = uuid.uuid4().hex
    if not _take(database, run_id, lease, rules, clock()):
        return SubmissionResult(run_id, Submission.TAKEN)
    try:
        prepared = prepare_request(database, store, provider, run_id, lease, rules.webhook)
    except ProviderError as error:
        # Nothing was asked to train yet: an upload of unknown outcome is at worst a file that expires.
        return _not_started(database, run_id, lease, clock(), error)
    if prepared is None:
        return SubmissionResult(run_id, Submission.TAKEN)
    refusal = _commit_intent(database, prepared, rules, clock())
    if refusal is not None:
        return refusal
    return _send(database, provider, prepared, clock, emit=emit)


def _take(database: Database, run_id: int, lease: str, rules: SubmissionRules, now: datetime) -> bool:
    with database.begin() as session:
        return bool(
            changed_rows(
                session,
                update(TrainingRun)
                .where(
                    TrainingRun.id == run_id,
                    TrainingRun.state == TrainingState.PACKED,
                    TrainingRun.cancel_requested_at.is_(None),
                    or_(TrainingRun.not_before.is_(None), TrainingRun.not_before <= now),
                    or_(TrainingRun.lease_until.is_(None), TrainingRun.lease_until <= now),
                )
                .values(lease_token=lease, lease_until=now + rules.lease),
            )
        )


def _commit_intent(
    database: Database, prepared: PreparedRequest, rules: SubmissionRules, now: datetime
) -> SubmissionResult | None:
    """From here on the request may leave. Says why not, where the switch, the caps or another submitter object."""
    with database.begin() as session:
        switch = submission_switch(session, lock=True)
        run = session.get_one(TrainingRun, prepared.run_id, with_for_update=True)
        if run.state != TrainingState.PACKED or run.lease_token != prepared.lease:
            return SubmissionResult(prepared.run_id, Submission.TAKEN)
        # A run may have been opened while a simulator answered: what counts is who is asked now.
        run.simulated = prepared.simulated
        reason, until = _objection(session, run, rules, switch.reason if switch.paused else None, now)
        if reason is not None:
            run.hold_reason, run.not_before, run.lease_until = reason, until, None
            return SubmissionResult(prepared.run_id, Submission.DEFERRED, reason=reason)
        run.post_started_at, run.not_before = now, None
        move(session, run, TrainingState.INTENT, now)
    return None


def _objection(
    session: Session, run: TrainingRun, rules: SubmissionRules, paused: str | None, now: datetime
) -> tuple[str | None, datetime | None]:
    if paused is not None:
        return f"submissions are paused: {paused}. Continue with: lora-pipeline trainings resume", None
    if run.simulated:
        return None, None
    today = started_today(session, now)
    reason = over_daily_cap(today.count, today.cost, run.estimated_cost or 0.0, rules.caps)
    tomorrow = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return reason, tomorrow


def _send(
    database: Database,
    provider: TrainingProvider,
    prepared: PreparedRequest,
    clock: Callable[[], datetime],
    *,
    emit: bool,
) -> SubmissionResult:
    try:
        job = _create(provider, prepared)
    except UnknownOutcome as error:
        log.warning("training %s: outcome of the submission is unknown: %s", prepared.run_id, error)
        return SubmissionResult(prepared.run_id, Submission.UNKNOWN, reason=str(error))
    except ProviderError as error:
        # A destination still missing right after it was made is a provider that is not done making it.
        return _not_started(database, prepared.run_id, prepared.lease, clock(), error)
    with database.begin() as session:
        adopt(session, prepared.run_id, job, prepared.simulated, clock(), emit=emit)
    return SubmissionResult(prepared.run_id, Submission.SUBMITTED, training_id=job.id)


def _create(provider: TrainingProvider, prepared: PreparedRequest) -> TrainingJob:
    """The one creation request; a second only after a 404 of the destination, which surely started nothing."""
    try:
        return provider.create_training(prepared.request)
    except DestinationMissing:
        # Somebody deleted it since it was trained into.
        make_destination(provider, prepared.destination, prepared.model_key)
        return provider.create_training(prepared.request)


def _not_started(
    database: Database, run_id: int, lease: str, now: datetime, error: ProviderError
) -> SubmissionResult:
    """What follows from an error that surely started nothing. Raises Unauthenticated."""
    if isinstance(error, Refused):
        return _refuse(database, run_id, lease, now, str(error))
    if isinstance(error, InsufficientCredit):
        with database.begin() as session:
            set_switch(session, paused=True, reason=str(error), actor="provider", now=now)
    deferred = _defer(database, run_id, lease, now, error)
    if isinstance(error, Unauthenticated):
        raise error
    return deferred


def _defer(database: Database, run_id: int, lease: str, now: datetime, error: Exception) -> SubmissionResult:
    """Back to packed: this submitter's request surely started nothing."""
    throttled = error.retry_after if isinstance(error, Throttled) else None
    wait = _RETRY_UNAVAILABLE if throttled is None else timedelta(seconds=throttled)
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        if _still_ours(run, lease):
            move(session, run, TrainingState.PACKED, now)
            run.post_started_at, run.not_before, run.lease_until = None, now + wait, None
            run.hold_reason = str(error)
    return SubmissionResult(run_id, Submission.DEFERRED, reason=str(error), retry_after=throttled)


def _refuse(database: Database, run_id: int, lease: str, now: datetime, reason: str) -> SubmissionResult:
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        if _still_ours(run, lease):
            run.post_started_at = None
            move(session, run, TrainingState.FAILED, now, reason=reason)
    return SubmissionResult(run_id, Submission.REFUSED, reason=reason)


def _still_ours(run: TrainingRun, lease: str) -> bool:
    """Whether no other submitter took the run over: what came of our request says nothing about theirs."""
    return run.state in _UNSENT and run.training_id is None and run.lease_token == lease


def submittable(database: Database, now: datetime, *, by_itself: bool) -> list[str]:
    """Keys of models whose training was opened and not sent yet, oldest first.

    Left out is what nobody meant to pay for now: a ZIP that was materialised by hand, and, where nothing may
    be spent without being asked (`by_itself` False), what a sensor opened.
    """
    waiting = (
        select(UserModel.model_key)
        .join(TrainingRun, TrainingRun.model_id == UserModel.id)
        .where(
            TrainingRun.state.in_([TrainingState.READY, TrainingState.PACKED]),
            TrainingRun.asked_by != ASKED_BY_HAND,
            or_(TrainingRun.not_before.is_(None), TrainingRun.not_before <= now),
            or_(TrainingRun.lease_until.is_(None), TrainingRun.lease_until <= now),
        )
        .order_by(TrainingRun.id)
    )
    if not by_itself:
        waiting = waiting.where(TrainingRun.asked_by != ASKED_BY_SENSOR)
    with database.read() as session:
        return list(session.scalars(waiting))
