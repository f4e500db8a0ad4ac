"""Opening a training: the committed row with its token, before anything leaves this house."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    AuditEntry,
    Image,
    ImageSet,
    ImageSetMember,
    ModelVersion,
    TrainingRun,
    UserModel,
)
from lora_pipeline.providers.protocol import LeavesWeightsInBucket, TrainingProvider
from lora_pipeline.trainings.costs import cost_of
from lora_pipeline.trainings.facts import image_set_event
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.trainings.parameters import DEFAULT_POLICY, training_parameters
from lora_pipeline.trainings.progress import expected_seconds
from lora_pipeline.trainings.transitions import move, owe_all

# Enough finished trainings for a steady median, few enough to follow a provider that becomes faster.
_HISTORY = 50


class TrainingRefused(Exception):
    """This training cannot be opened; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingWish:
    """What somebody wants trained."""

    model_key: str
    image_set_id: int
    asked_by: str
    policy: str = DEFAULT_POLICY
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedTraining:
    """The run that now stands for the wish."""

    run_id: int
    token: str
    created: bool
    """False where the model's open run was found instead of a new one being made."""


def open_training(
    database: Database,
    provider: TrainingProvider,
    wish: TrainingWish,
    *,
    trainer: str,
    owner: str | None,
    now: datetime,
    emit: bool = True,
) -> OpenedTraining:
    """Commit a run in `ready` for a frozen set, or give back the model's open run of the same set.

    Raises TrainingRefused where another training of the model is still open, ParametersRefused where the
    trainer would not take the parameters, and ProviderError where the trainer cannot be asked. `emit=False`
    where the image set's materialisation has been reported already.
    """
    schema = provider.input_schema(trainer)
    destination_owner = owner or provider.owner()
    into_bucket = isinstance(provider, LeavesWeightsInBucket)
    with database.begin() as session:
        # Nothing is opened either: what waited here would be paid for as soon as observing ends.
        refuse_while_observing(session, f"no training of {wish.model_key} was started")
        model = session.scalars(
            select(UserModel).where(UserModel.model_key == wish.model_key).with_for_update()
        ).one()
        image_set = session.get_one(ImageSet, wish.image_set_id)
        open_run = _open_run(session, model.id)
        if open_run is not None:
            return _same_or_refuse(open_run, wish)
        _refuse_without_photographs(session, model, image_set)
        parameters = training_parameters(
            wish.policy,
            image_count=image_set.usable_count,
            trigger_word=model.trigger_word,
            model_type=model.model_type,
            overrides=wish.overrides,
            schema=schema,
        )
        seconds = expected_seconds(recent_durations(session, provider.name), steps=parameters.steps)
        run = TrainingRun(
            user_id=model.user_id,
            model_id=model.id,
            image_set_id=image_set.id,
            attempt=_attempts(session, model.id) + 1,
            token=uuid.uuid4().hex,
            provider=provider.name,
            simulated=provider.simulated,
            destination=_weights_name(session, model)
            if into_bucket
            else model.replicate_model_id or destination_for(destination_owner, model),
            base_model="flux-dev",
            trainer_requested=trainer,
            parameters=dict(parameters.values),
            parameter_policy=parameters.policy,
            trigger_word=model.trigger_word,
            asked_by=wish.asked_by,
            estimated_cost=cost_of(seconds, provider.name),
            loss_history=[],
            state_changed_at=now,
            created_at=now,
            updated_at=now,
        )
        session.add(run)
        session.flush()
        move(session, run, TrainingState.READY, now)
        if emit:
            owe_all(session, [image_set_event(session, image_set, model.model_key)], now)
        session.add(
            AuditEntry(
                at=now,
                actor=wish.asked_by,
                action="open training",
                subject=model.model_key,
                details={"run": run.id, "image_set": image_set.id, "attempt": run.attempt},
            )
        )
        return OpenedTraining(run.id, run.token, created=True)


def _refuse_without_photographs(session: Session, model: UserModel, image_set: ImageSet) -> None:
    """Raise TrainingRefused where photographs of the set were deleted because they were due."""
    gone = session.scalars(
        select(Image.deleted_at)
        .join(ImageSetMember, ImageSetMember.image_id == Image.id)
        .where(
            ImageSetMember.image_set_id == image_set.id,
            ImageSetMember.position.is_not(None),
            Image.deleted_at.is_not(None),
        )
        .limit(1)
    ).first()
    if gone is not None:
        raise TrainingRefused(
            f"the photographs of {model.model_key} were deleted on {gone:%Y-%m-%d}, because they were due "
            f"(LORA_KEEP_PHOTOGRAPHS). Upload them again: lora-pipeline upload {model.model_key} PATH…"
        )


def untrained_sets(database: Database, *, by_itself: bool) -> list[str]:
    """Keys of models whose newest frozen set was never opened for training: what a crash in between left.

    A set whose content the model was trained on before counts only where somebody asked for it, and without
    permission to spend (`by_itself`) so do all.
    """
    newest = (
        select(func.max(ImageSet.id).label("id"))
        .where(ImageSet.state == "ready")
        .group_by(ImageSet.model_id)
        .subquery()
    )
    trained = aliased(ImageSet)
    opened = exists().where(TrainingRun.image_set_id == ImageSet.id)
    known_content = exists().where(
        TrainingRun.model_id == ImageSet.model_id,
        TrainingRun.image_set_id == trained.id,
        trained.digest == ImageSet.digest,
    )
    busy = exists().where(TrainingRun.model_id == ImageSet.model_id, TrainingRun.state.in_(OPEN))
    asked = ImageSet.asked_for_at.is_not(None)
    with database.read() as session:
        return list(
            session.scalars(
                select(UserModel.model_key)
                .join(ImageSet, ImageSet.model_id == UserModel.id)
                .join(newest, newest.c.id == ImageSet.id)
                .where(~opened, ~busy, or_(asked, ~known_content) if by_itself else asked)
                .order_by(ImageSet.id)
            )
        )


def destination_for(owner: str, model: UserModel) -> str:
    """`owner/name` of the provider's model that receives a model's versions."""
    kind = "style" if model.model_type == "style" else "selfie"
    return f"{owner}/{model.model_key.lower()}-{kind}-lora"


def _weights_name(session: Session, model: UserModel) -> str:
    """The name of the weights' file where a worker writes it: `style_1_vV7`, as such workers name theirs."""
    highest = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model.id))
    return f"{model.model_key}_vV{(highest or 0) + 1}"


def _open_run(session: Session, model_id: int) -> TrainingRun | None:
    return session.scalars(
        select(TrainingRun).where(TrainingRun.model_id == model_id, TrainingRun.state.in_(OPEN))
    ).one_or_none()


def _same_or_refuse(run: TrainingRun, wish: TrainingWish) -> OpenedTraining:
    if run.image_set_id == wish.image_set_id:
        return OpenedTraining(run.id, run.token, created=False)
    raise TrainingRefused(
        f"{wish.model_key} already has training {run.id} in state {run.state}; one model trains once at a "
        f"time. Wait for it, or end it with: lora-pipeline trainings cancel {run.id}"
    )


def _attempts(session: Session, model_id: int) -> int:
    return session.scalar(select(func.max(TrainingRun.attempt)).where(TrainingRun.model_id == model_id)) or 0


def recent_durations(session: Session, provider: str) -> list[float]:
    """Seconds that the provider's last finished trainings took, as it measured them."""
    return [
        seconds
        for seconds in session.scalars(
            select(TrainingRun.predict_seconds)
            .where(
                TrainingRun.provider == provider,
                TrainingRun.state == TrainingState.FINALISED,
                TrainingRun.predict_seconds.is_not(None),
            )
            .order_by(TrainingRun.id.desc())
            .limit(_HISTORY)
        )
        if seconds is not None
    ]
