"""How a model's training stands, in the words that applications know: from the database alone, in one query.

Progress that the trainer printed is told as it is. Before there is any it is estimated from the time that has
passed, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session, defer

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ImageSet, ModelVersion, TrainingRun, UserModel
from lora_pipeline.settings import PROVIDERS
from lora_pipeline.trainings.intents import recent_durations
from lora_pipeline.trainings.lifecycle import FOLLOWED, SHOWN_STATUS, TrainingState
from lora_pipeline.trainings.progress import estimate_progress, expected_seconds, merge_progress
from lora_pipeline.versions.lookup import ModelNotFound

WORDS = ("pending", "starting", "training", "completed", "failed", "canceled")
_ESTIMATED = frozenset({TrainingState.SUBMITTED, TrainingState.RUNNING})
_STEPS = 1000


@dataclass(frozen=True)
class Standing:
    """One model and its newest training."""

    model_id: int
    model_key: str
    model_name: str
    model_type: str
    gender: str | None
    trigger_word: str
    status: str
    """One of WORDS: of the newest training, or of the model where it has none."""
    progress: int
    """Percent. 100 means registered, and nothing else does."""
    estimated: bool
    seconds_left: int | None
    """About how long it will still take, in half minutes; None where that says nothing."""
    run_id: int | None
    provider: str | None
    training_id: str | None
    attempt: int | None
    error: str | None
    hold_reason: str | None
    served_version: int | None
    provider_version: str | None
    started_at: datetime | None
    completed_at: datetime | None
    last_polled_at: datetime | None
    followed: bool
    """Whether the provider could tell more than the database does."""


def standing_of(
    session: Session, condition: ColumnElement[bool], now: datetime, usual: Mapping[str, float]
) -> Standing:
    """The standing of the one model that meets the condition. Raises ModelNotFound.

    `usual` says how many seconds a training usually takes at each provider, for the estimate.
    """
    row = session.execute(_QUESTION.where(condition)).one_or_none()
    if row is None:
        raise ModelNotFound("there is no such model. Give its modelId, as the start of its training answered")
    model: UserModel = row[0]
    run: TrainingRun | None = row[1]
    number: int | None = row[2]
    provider_version: str | None = row[3]
    newest_set: ImageSet | None = row[4]
    if _asked_anew(run, newest_set):
        # A training that was asked for and is not opened yet: how the one before ended is history.
        return _before_a_run(model, "pending", 0, number, provider_version)
    if run is None:
        return _before_a_run(model, model.training_status, model.training_progress, number, provider_version)
    expected = usual[run.provider]
    progress, estimated = shown_progress(run, now, expected)
    state = TrainingState(run.state)
    status, error = SHOWN_STATUS[state], run.error
    if state is TrainingState.FINALISED and number is None and model.training_status == "canceled":
        status, error = model.training_status, model.failure_reason  # too late, and so not served
    return replace(
        _before_a_run(model, status, progress, number, provider_version),
        estimated=estimated,
        seconds_left=_seconds_left(run, now, expected) if state in _ESTIMATED else None,
        run_id=run.id,
        provider=run.provider,
        training_id=run.training_id,
        attempt=run.attempt,
        error=error,
        hold_reason=run.hold_reason,
        started_at=run.submitted_at,
        completed_at=run.completed_at,
        last_polled_at=run.last_polled_at,
        followed=state in FOLLOWED,
    )


def _asked_anew(run: TrainingRun | None, newest_set: ImageSet | None) -> bool:
    if newest_set is None or newest_set.asked_for_at is None:
        return False
    if run is None:
        return True
    return run.image_set_id != newest_set.id and newest_set.asked_for_at > run.created_at


def _before_a_run(
    model: UserModel, status: str, progress: int, number: int | None, provider_version: str | None
) -> Standing:
    return Standing(
        model_id=model.id,
        model_key=model.model_key,
        model_name=model.model_name,
        model_type=model.model_type,
        gender=model.gender,
        trigger_word=model.trigger_word,
        status=status,
        progress=progress,
        estimated=False,
        seconds_left=None,
        run_id=None,
        provider=None,
        training_id=None,
        attempt=None,
        error=model.failure_reason,
        hold_reason=None,
        served_version=number,
        provider_version=provider_version,
        started_at=model.started_at,
        completed_at=model.completed_at,
        last_polled_at=None,
        followed=False,
    )


def shown_progress(run: TrainingRun, now: datetime, expected: float) -> tuple[int, bool]:
    """Percent to show, and whether it is an estimate."""
    if run.state == TrainingState.FINALISED:
        return 100, False
    if run.state not in _ESTIMATED or not run.progress_estimated or run.submitted_at is None:
        return run.progress, False
    elapsed = (now - run.submitted_at).total_seconds()
    return merge_progress(run.progress, estimate_progress(elapsed, expected)), True


def usual_seconds(database: Database) -> dict[str, float]:
    """How long a training usually takes at each provider, from those that ended well."""
    with database.read() as session:
        return {name: expected_seconds(recent_durations(session, name), _STEPS) for name in PROVIDERS}


def _seconds_left(run: TrainingRun, now: datetime, expected: float) -> int | None:
    if run.submitted_at is None:
        return None
    if run.progress_estimated:
        left = expected - (now - run.submitted_at).total_seconds()
    else:
        left = expected * (100 - run.progress) / 100
    return 30 * round(left / 30) if left > 0 else None


_NEWEST_RUN = (
    select(TrainingRun.id)
    .where(TrainingRun.model_id == UserModel.id)
    .order_by(TrainingRun.attempt.desc())
    .limit(1)
    .correlate(UserModel)
    .scalar_subquery()
)
_NEWEST_SET = (
    select(func.max(ImageSet.id))
    .where(ImageSet.model_id == UserModel.id)
    .correlate(UserModel)
    .scalar_subquery()
)
_QUESTION = (
    select(UserModel, TrainingRun, ModelVersion.number, ModelVersion.provider_version, ImageSet)
    .outerjoin(TrainingRun, TrainingRun.id == _NEWEST_RUN)
    .outerjoin(Activation, (Activation.model_id == UserModel.id) & Activation.active_to.is_(None))
    .outerjoin(ModelVersion, ModelVersion.id == Activation.version_id)
    .outerjoin(ImageSet, ImageSet.id == _NEWEST_SET)
    .options(
        # What a poll every few seconds does not need and would have to parse.
        defer(TrainingRun.parameters),
        defer(TrainingRun.loss_history),
        defer(ImageSet.findings),
        defer(ImageSet.consent),
    )
)
