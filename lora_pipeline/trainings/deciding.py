"""A person's decision over a training that the program does not decide by itself: held, or lost.

Each decision looks again before it acts: at the provider for what absence was about to prove, and at the row
under its lock, so that a decision made over yesterday's picture changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, TrainingRun
from lora_pipeline.providers.protocol import LeavesWeightsInBucket, NotFound, TrainingJob, TrainingProvider
from lora_pipeline.trainings.adoption import adopt, marks_of
from lora_pipeline.trainings.adoption_checks import Expected, objection_to_adopting
from lora_pipeline.trainings.choices import choices_for
from lora_pipeline.trainings.intents import TrainingRefused
from lora_pipeline.trainings.late_landings import give_up_request
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.looking import look_at_training
from lora_pipeline.trainings.outputs import outputs_are_known
from lora_pipeline.trainings.reconciliation import CLOCK_SKEW
from lora_pipeline.trainings.runs import locked_run, model_key_of
from lora_pipeline.trainings.transitions import move

MAX_PAGES = 100


class DecisionRefused(TrainingRefused):
    """This decision does not fit the run as it stands; the message says why and what does. Nothing was changed."""


class Decision(StrEnum):
    RESUBMITTED = "resubmitted"
    ADOPTED = "adopted"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Decided:
    """What a decision did."""

    run_id: int
    model_key: str
    decision: Decision
    state: TrainingState
    explanation: str


@dataclass(frozen=True)
class _Unknown:
    """A submission of unknown outcome as it was read before the provider was asked."""

    run_id: int
    token: str
    sent_at: datetime
    expected: Expected


def resubmit_training(
    database: Database, provider: TrainingProvider, run_id: int, actor: str, clock: Callable[[], datetime]
) -> Decided:
    """Let a held submission of unknown outcome be sent again, once a fresh look at the list does not show it.

    A job that the list does show is adopted instead. Raises DecisionRefused, or ProviderError where the list
    could not be read: absence is then not proved. Even a proved absence is a bet, since a request may land
    late; the list is watched for that, and a second job is cancelled and reported.
    """
    with database.read() as session:
        refuse_while_observing(session, f"training run {run_id} was not sent again")
    unknown = _unknown_submission(database, run_id, frozenset({TrainingState.HELD}))
    found = _look_for(provider, unknown)
    now = clock()
    with database.begin() as session:
        run = _unchanged(session, unknown)
        model_key = model_key_of(session, run)
        if found is not None:
            adopt(session, run_id, found, provider.simulated, now)
            _note(session, run, model_key, actor, "adopt training", now, training_id=run.training_id)
            explanation = f"the provider has it as {run.training_id}: adopted, not sent again"
            return Decided(run_id, model_key, Decision.ADOPTED, TrainingState(run.state), explanation)
        if run.cancel_requested_at is not None:
            raise DecisionRefused(
                f"training run {run_id} was to be cancelled; sending it again would start it. "
                f"Give it up with: lora-pipeline trainings resolve {run_id} --abandon"
            )
        give_up_request(session, run, actor, now)
        _note(session, run, model_key, actor, "resubmit training", now)
        run.post_started_at = run.not_before = run.lease_token = run.lease_until = None
        move(session, run, TrainingState.PACKED, now)
    explanation = "nothing with its token was found; it is sent again with the next batch"
    return Decided(run_id, model_key, Decision.RESUBMITTED, TrainingState.PACKED, explanation)


def adopt_training(
    database: Database,
    provider: TrainingProvider,
    run_id: int,
    training_id: str,
    actor: str,
    clock: Callable[[], datetime],
) -> Decided:
    """Take the provider's training that a person names as the job of a submission of unknown outcome.

    Raises DecisionRefused where the provider does not show it, or its mark, its trainer or its destination
    says that it belongs elsewhere, and ProviderError.
    """
    unknown = _unknown_submission(database, run_id, frozenset({TrainingState.HELD, TrainingState.INTENT}))
    try:
        asked = training_id.strip()
        job = look_at_training(provider, asked, unknown.token, unknown.expected.destination)
    except NotFound as error:
        raise DecisionRefused(f"training run {run_id} cannot take {training_id.strip()}: {error}") from None
    objection = _owned_elsewhere(database, provider.name, run_id, job) or objection_to_adopting(
        job, marks_of(job), unknown.expected
    )
    if objection is not None:
        raise DecisionRefused(f"training run {run_id} cannot take {training_id.strip()}: {objection}")
    now = clock()
    with database.begin() as session:
        run = _unchanged(session, unknown)
        model_key = model_key_of(session, run)
        _note(session, run, model_key, actor, "adopt training", now, training_id=job.id)
        adopt(session, run_id, job, provider.simulated, now)
        explanation = f"training {job.id} is its job now; it is followed from here on"
        return Decided(run_id, model_key, Decision.ADOPTED, TrainingState(run.state), explanation)


def abandon_training(
    database: Database,
    provider: TrainingProvider,
    run_id: int,
    actor: str,
    clock: Callable[[], datetime],
    *,
    why: str = "",
) -> Decided:
    """Give up a held or lost training: it ends as failed, and what it trained is never registered.

    A lost one is asked for once more and stays where the provider knows it again. Raises DecisionRefused,
    ProviderError.
    """
    with database.read() as session:
        seen = session.get(TrainingRun, run_id)
        lost = seen.training_id if seen is not None and seen.state == TrainingState.LOST else None
    if seen is not None and lost is not None:
        _still_lost(provider, seen, lost)
    now = clock()
    with database.begin() as session:
        run = locked_run(session, run_id)
        model_key = model_key_of(session, run)
        objection = _objection_to_abandoning(run, looked_for=lost)
        if objection is not None:
            raise DecisionRefused(objection)
        reason = f"abandoned by {actor}{f' ({why})' if why else ''}: {run.hold_reason or run.error or 'it stood still'}"
        if run.training_id is None:
            give_up_request(session, run, actor, now)
        _note(session, run, model_key, actor, "abandon training", now, why=why, was=run.state)
        run.lease_token = run.lease_until = run.not_before = None
        move(session, run, TrainingState.FAILED, now, reason=reason)
    explanation = f"it is failed now; train it anew with: lora-pipeline trainings retry {run_id}"
    return Decided(run_id, model_key, Decision.ABANDONED, TrainingState.FAILED, explanation)


def choices_of(run: TrainingRun) -> str:
    """The decisions that fit a run, as command-line options; empty where it needs none."""
    paid, outputs_known = run.succeeded_at is not None, not _success_without_outputs(run)
    return choices_for(TrainingState(run.state), paid=paid, outputs_known=outputs_known)


def waits_for(database: Database, run_id: int) -> str:
    """What a run waits for and which decisions fit, for people."""
    with database.begin() as session:
        run = locked_run(session, run_id)
        choices = choices_of(run)
        why = f" ({run.hold_reason})" if run.hold_reason else ""
        fitting = f"decide with one of: {choices}" if choices else "it needs no decision"
        return f"training run {run.id} is {run.state}{why}; {fitting}"


def _no_such_decision(run: TrainingRun, wanted: str) -> str:
    choices = choices_of(run)
    known = f"decide with one of: {choices}" if choices else "it needs no decision"
    return f"training run {run.id} is {run.state} and cannot be {wanted}; {known}"


def _unknown_submission(database: Database, run_id: int, states: frozenset[TrainingState]) -> _Unknown:
    with database.begin() as session:
        run = locked_run(session, run_id)
        sent_at = run.post_started_at
        if run.state not in states or run.training_id is not None or sent_at is None:
            wanted = "adopted" if TrainingState.INTENT in states else "sent again"
            raise DecisionRefused(_no_such_decision(run, wanted))
        marks = frozenset(mark for mark in (run.token, run.provider_file_id) if mark)
        return _Unknown(run_id, run.token, sent_at, Expected(marks, run.trainer_requested, run.destination))


def _unchanged(session: Session, unknown: _Unknown) -> TrainingRun:
    """The locked run, provided that nothing was decided about it while the provider was asked."""
    run = locked_run(session, unknown.run_id)
    waiting = run.state in (TrainingState.HELD, TrainingState.INTENT) and run.training_id is None
    if not waiting or run.post_started_at != unknown.sent_at:
        raise DecisionRefused(
            f"training run {run.id} became {run.state} meanwhile (job {run.training_id or 'none'}); nothing was changed"
        )
    return run


def _look_for(provider: TrainingProvider, unknown: _Unknown) -> TrainingJob | None:
    """The run's job in the provider's list, read back to before its request was sent; None where it is not there.

    A provider without a list is looked for in the bucket: there only an ended training shows.
    """
    if isinstance(provider, LeavesWeightsInBucket):
        return provider.find_training(unknown.token, unknown.expected.destination)
    for number, page in enumerate(provider.list_trainings(), 1):
        for job in page.jobs:
            if unknown.expected.marks.intersection(marks_of(job)):
                return job
        if page.malformed:
            raise DecisionRefused(
                f"{len(page.malformed)} trainings in the provider's list cannot be read ({page.malformed[0]}): one may "
                f"be the one looked for. Look at the provider's page, then: lora-pipeline trainings resolve "
                f"{unknown.run_id} --adopt TRAINING_ID | --abandon"
            )
        times = [job.created_at for job in page.jobs if job.created_at]
        if times and min(times) < unknown.sent_at - CLOCK_SKEW:
            return None
        if number >= MAX_PAGES:
            raise DecisionRefused(
                f"{MAX_PAGES} pages of the provider's list do not reach back to {unknown.sent_at:%Y-%m-%d %H:%M} UTC: "
                "its absence is not proved. Look at the provider's page, then adopt or abandon it"
            )
    return None


def _owned_elsewhere(database: Database, provider: str, run_id: int, job: TrainingJob) -> str | None:
    """Whose job it is, where another run has it or its dataset was packed for another run."""
    marks = marks_of(job)
    ours = or_(
        TrainingRun.training_id == job.id,
        TrainingRun.token.in_(marks),
        TrainingRun.provider_file_id.in_(marks),
    )
    with database.read() as session:
        owner = session.scalars(
            select(TrainingRun.id).where(TrainingRun.provider == provider, TrainingRun.id != run_id, ours)
        ).first()
    return f"it belongs to training run {owner}" if owner is not None else None


def _still_lost(provider: TrainingProvider, run: TrainingRun, training_id: str) -> None:
    run_id = run.id
    try:
        job = look_at_training(provider, training_id, run.token, run.destination)
    except NotFound:
        return
    raise DecisionRefused(
        f"the provider knows training {training_id} of run {run_id} again (it is {job.provider_status}): the next "
        "status tick takes it up. To end it: lora-pipeline trainings cancel " + str(run_id)
    )


def _objection_to_abandoning(run: TrainingRun, *, looked_for: str | None) -> str | None:
    if run.state == TrainingState.LOST and run.training_id != looked_for:
        return f"training run {run.id} became lost just now; ask again"
    if run.state in (TrainingState.HELD, TrainingState.LOST) or _success_without_outputs(run):
        return None
    return _no_such_decision(run, "abandoned")


def _success_without_outputs(run: TrainingRun) -> bool:
    """Whether the provider says succeeded and has never named the version or its weights."""
    return run.state == TrainingState.SUCCEEDED and not outputs_are_known(
        run.provider, run.output_version, run.output_artifact_url
    )


def _note(
    session: Session,
    run: TrainingRun,
    model_key: str,
    actor: str,
    action: str,
    now: datetime,
    **details: object,
) -> None:
    session.add(
        AuditEntry(at=now, actor=actor, action=action, subject=model_key, details={"run": run.id, **details})
    )
