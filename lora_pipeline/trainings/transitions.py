"""Moving a training run from one state to the next: the one place where `state` and `status` are written.

Each function works inside the caller's transaction on a row that the caller has locked, and owes Dagster
the event of the change in that same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from lora_pipeline.callbacks.owing import training_ended
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.providers.protocol import JobState, TrainingJob
from lora_pipeline.trainings.costs import cost_of
from lora_pipeline.trainings.facts import training_event
from lora_pipeline.trainings.lifecycle import (
    SHOWN_STATUS,
    SUCCEEDED_PROGRESS,
    TERMINAL,
    TrainingState,
    next_state,
)
from lora_pipeline.trainings.outbox import AssetEvent, owe
from lora_pipeline.trainings.progress import merge_progress, read_losses, read_progress

_CHUNK = 500


@dataclass(frozen=True)
class Moved:
    """A change of state that was made."""

    run_id: int
    before: TrainingState
    after: TrainingState


def move(
    session: Session,
    run: TrainingRun,
    to: TrainingState,
    now: datetime,
    *,
    reason: str | None = None,
    emit: bool = True,
) -> Moved:
    """Put a locked run into a state, with the words its model shows, and owe Dagster the event.

    `reason` becomes `hold_reason` for `held` and `lost`, and `error` for the failed ends.
    """
    before = TrainingState(run.state)
    run.state, run.status = to, SHOWN_STATUS[to]
    run.state_changed_at = run.updated_at = now
    run.hold_reason = reason if to in (TrainingState.HELD, TrainingState.LOST) else None
    if to in (TrainingState.FAILED, TrainingState.ABORTED, TrainingState.CANCELED):
        run.error = reason or run.error
        run.completed_at = run.completed_at or now
    model = session.get_one(UserModel, run.model_id)
    _show(model, run, to, now)
    if to in TERMINAL:
        session.add(training_ended(model, run, now))
    if emit and to not in (TrainingState.READY, TrainingState.PACKED, TrainingState.INTENT):
        owe_all(session, [training_event(run, model.model_key)], now)
    return Moved(run.id, before, to)


def owe_all(session: Session, events: list[AssetEvent], now: datetime) -> None:
    """Flush the rows the events were read from, then owe them: both or neither is committed."""
    session.flush()
    owe(session, events, now)


def observe(session: Session, seen: Mapping[int, TrainingJob], now: datetime) -> list[Moved]:
    """Apply what the provider says of many runs (run id → job): moves, outputs, progress.

    Locks only rows that may change, 500 at a time; a row that someone else moved meanwhile is judged
    again by the same rule, so that order and repetition make no difference.
    """
    moved: list[Moved] = []
    for chunk in _chunks(sorted(seen)):
        rows = session.scalars(
            select(TrainingRun).where(TrainingRun.id.in_(chunk)).order_by(TrainingRun.id).with_for_update()
        )
        runs = {run.id: run for run in rows}
        # One query for the models of the chunk: `move` then finds each in the session.
        models = {model.id: model.model_key for model in session.scalars(_models_of(runs))}
        changes = [observe_one(session, run, seen[run.id], now, emit=False) for run in runs.values()]
        made = [change for change in changes if change is not None]
        ended = [runs[change.run_id] for change in made]
        owe_all(session, [training_event(run, models[run.model_id]) for run in ended], now)
        moved.extend(made)
    return moved


def _models_of(runs: Mapping[int, TrainingRun]) -> Select[UserModel]:
    return select(UserModel).where(UserModel.id.in_({run.model_id for run in runs.values()}))


def observe_one(
    session: Session, run: TrainingRun, job: TrainingJob, now: datetime, *, emit: bool = True
) -> Moved | None:
    """Apply one job to its locked run; the move that followed, if any."""
    if TrainingState(run.state) in TERMINAL:
        return None
    _copy_outputs(run, job)
    _copy_progress(run, job, now)
    to = next_state(TrainingState(run.state), job.state)
    if to is None:
        return None
    if to is TrainingState.RUNNING:
        run.started_at = run.started_at or job.started_at or now
    if to is TrainingState.SUCCEEDED:
        run.succeeded_at = job.completed_at or now
        run.progress, run.progress_estimated = SUCCEEDED_PROGRESS, False
    return move(session, run, to, now, reason=job.error or _unexplained(job, to), emit=emit)


def _unexplained(job: TrainingJob, to: TrainingState) -> str | None:
    """What is said of an end for which the provider gave no reason."""
    if to not in (TrainingState.FAILED, TrainingState.ABORTED):
        return None
    return f"the provider ended training {job.id} as {job.provider_status!r} and gave no reason"


def _copy_outputs(run: TrainingRun, job: TrainingJob) -> None:
    run.output_version = job.output_version or run.output_version
    run.output_artifact_url = job.output_weights or run.output_artifact_url
    run.trainer_returned = job.trainer_version or run.trainer_returned
    if job.predict_seconds is not None:
        run.predict_seconds = job.predict_seconds
        run.cost = cost_of(job.predict_seconds, run.provider)


def _copy_progress(run: TrainingRun, job: TrainingJob, now: datetime) -> None:
    if not job.logs or job.state not in (JobState.RUNNING, JobState.SUCCEEDED):
        return
    progress = read_progress(job.logs)
    if progress is None:
        return
    # Logs that say 100 % end nothing: only the status is terminal.
    run.progress = merge_progress(run.progress, min(progress.percent, SUCCEEDED_PROGRESS))
    run.progress_estimated = False
    run.loss_history = [list(pair) for pair in read_losses(job.logs)]
    run.last_progress_at = now


def _show(model: UserModel, run: TrainingRun, to: TrainingState, now: datetime) -> None:
    """What `user_models` says: a model that has had a version keeps saying `completed` whatever a retrain does."""
    model.updated_at = now
    if run.training_id:
        model.training_id = run.training_id
    if model.completed_at is not None:
        return
    shown = SHOWN_STATUS[to]
    model.training_status = "training" if shown == "starting" else shown
    model.training_progress = run.progress
    model.failure_reason = run.error if to in TERMINAL else run.hold_reason
    if to is TrainingState.SUBMITTED:
        model.started_at = model.started_at or now


def _chunks(ids: list[int]) -> Iterable[list[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
