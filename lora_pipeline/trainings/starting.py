"""The start of one training: from photographs that have arrived to a training the provider knows.

Asked for by a person (`start_training`), or step by step for whoever materialises a model's assets by hand.
Everything that is ready goes through the same steps as a batch, in `start_batch`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ImageSet, ModelVersion, TrainingRun, UserModel
from lora_pipeline.image_sets.freezing import FrozenSet, freeze_set, latest_frozen_set
from lora_pipeline.image_sets.intake import IntakeReport, take_in_from_inbox
from lora_pipeline.trainings.facts import image_set_event, training_event, zip_event
from lora_pipeline.trainings.finalisation import finalise_training, trained_event
from lora_pipeline.trainings.finishing import finalisation_rules
from lora_pipeline.trainings.intents import (
    OpenedTraining,
    TrainingRefused,
    TrainingWish,
    open_training,
)
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.trainings.outbox import AssetEvent
from lora_pipeline.trainings.packing import pack_training
from lora_pipeline.trainings.parameters import DEFAULT_POLICY
from lora_pipeline.trainings.retraining_warnings import training_warnings
from lora_pipeline.trainings.runs import provider_of
from lora_pipeline.trainings.submission import (
    Submission,
    SubmissionResult,
    submit_training,
)

log = logging.getLogger(__name__)

FILE_ENDPOINT_LIMIT = 100_000_000
"""Bytes that Replicate's file endpoint takes: what a ZIP may have where our store signs no URL."""


@dataclass(frozen=True)
class PreparedSet:
    """A frozen image set, and the event it is worth."""

    image_set_id: int
    event: AssetEvent
    warnings: tuple[str, ...]
    """What to tell a person before it is paid."""


@dataclass(frozen=True)
class StartedTraining:
    """The event of a training at one provider, or why there is none."""

    event: AssetEvent | None
    explanation: str


@dataclass(frozen=True)
class FinishedLora:
    """The event of a finished version, or why there is none yet."""

    event: AssetEvent | None
    explanation: str = ""


def prepare_image_set(connections: Connections, model_key: str) -> PreparedSet:
    """Take in what lies in the model's inbox and freeze its set.

    A set that is frozen already and has nothing new is given back as it is. Raises SetBlocked with every
    reason where it cannot be trained.
    """
    take_in_arrivals(connections, model_key)
    frozen = freeze(connections, model_key)
    with connections.database.read() as session:
        image_set = session.get_one(ImageSet, frozen.image_set_id)
        return PreparedSet(
            image_set.id,
            image_set_event(session, image_set, model_key),
            training_warnings(session, image_set.model_id, image_set.id),
        )


def take_in_arrivals(connections: Connections, model_key: str) -> IntakeReport:
    """Take in what is new in the model's folder of the inbox."""
    return take_in_from_inbox(
        connections.database,
        connections.store,
        connections.inbox,
        model_key,
        profile=connections.image_profile,
    )


def freeze(connections: Connections, model_key: str) -> FrozenSet:
    """Freeze the model's draft, or give back the set that is frozen already. Raises SetBlocked."""
    return freeze_set(
        connections.database,
        connections.store,
        model_key,
        profile=connections.image_profile,
        zip_limit_bytes=None if connections.store.can_presign else FILE_ENDPOINT_LIMIT,
    )


def open_and_pack(connections: Connections, model_key: str, *, asked_by: str) -> AssetEvent:
    """Open a training of the model's newest frozen set and store its ZIP; the event of the ZIP."""
    frozen = latest_frozen_set(connections.database, model_key)
    if frozen is None:
        raise TrainingRefused(f"{model_key} has no frozen image set: materialise uploaded_image_set first")
    opened = _open(connections, TrainingWish(model_key, frozen.image_set_id, asked_by), emit=False)
    pack_training(connections.database, connections.store, opened.run_id, emit=False)
    with connections.database.read() as session:
        return zip_event(session.get_one(TrainingRun, opened.run_id), model_key)


def submit_packed(connections: Connections, model_key: str, provider: str) -> StartedTraining:
    """Submit the model's packed training, or report the one that is under way, if it is this provider's."""
    with connections.database.read() as session:
        run = newest_run(session, model_key)
    if run is None or run.state not in OPEN:
        raise TrainingRefused(f"{model_key} has no training to submit: materialise training_zip first")
    if run.provider != provider:
        return StartedTraining(None, f"{model_key} is trained at {run.provider}: nothing to do at {provider}")
    result = submit(connections, run.id, emit=False)
    if result.outcome in (Submission.REFUSED, Submission.DEFERRED, Submission.UNKNOWN):
        raise TrainingRefused(f"{model_key}: {result.outcome.value}: {result.reason}")
    with connections.database.read() as session:
        event = training_event(session.get_one(TrainingRun, run.id), model_key)
    explanation = f"{model_key}: submitted. The status sensor follows it, and trained_lora comes by itself"
    return StartedTraining(event, explanation)


def finish_if_succeeded(connections: Connections, model_key: str) -> FinishedLora:
    """Finalise the model's newest training if it has succeeded; otherwise say who will."""
    with connections.database.read() as session:
        run = newest_run(session, model_key)
    if run is None:
        return FinishedLora(None, f"{model_key} has never been trained")
    if run.state == TrainingState.SUCCEEDED:
        finalise_training(
            connections.database,
            connections.store,
            connections.provider_named(run.provider),
            run.id,
            finalisation_rules(connections),
            emit=False,
        )
    with connections.database.read() as session:
        run = session.get_one(TrainingRun, run.id)
        if run.state != TrainingState.FINALISED:
            waiting = f"training {run.training_id or run.id} is {run.state}"
            return FinishedLora(None, f"{waiting}; the status sensor finishes it and reports this asset")
        version = session.scalars(select(ModelVersion).where(ModelVersion.training_run_id == run.id)).one()
        model = session.get_one(UserModel, run.model_id)
        return FinishedLora(trained_event(session, run, model, version))


def start_training(
    connections: Connections,
    model_key: str,
    *,
    asked_by: str,
    overrides: Mapping[str, Any] | None = None,
    policy: str = DEFAULT_POLICY,
    say: Callable[[str], object] = lambda _: None,
    warn: Callable[[str], object] = lambda _: None,
) -> SubmissionResult:
    """Train one model now because a person asked: intake, checks, ZIP, submission. Returns without waiting.

    `warn` is told, before anything is paid, what may make this version weaker than the one that is served.
    Raises what stands in the way (`SetBlocked`, `TrainingRefused`, `ParametersRefused`, …); nothing has been
    paid then.
    """
    say("looking at the photographs")
    prepared = prepare_image_set(connections, model_key)
    for warning in prepared.warnings:
        warn(f"{model_key}: {warning}")
    wish = TrainingWish(model_key, prepared.image_set_id, asked_by, policy, dict(overrides or {}))
    return train(connections, wish, say)


def train(
    connections: Connections, wish: TrainingWish, say: Callable[[str], object] = lambda _: None
) -> SubmissionResult:
    """Open a training of a frozen set, pack it and send it."""
    opened = _open(connections, wish)
    say("packing the training ZIP")
    pack_training(connections.database, connections.store, opened.run_id)
    say("submitting")
    return submit(connections, opened.run_id)


def _open(connections: Connections, wish: TrainingWish, *, emit: bool = True) -> OpenedTraining:
    with connections.database.read() as session:
        model_type = session.scalars(
            select(UserModel.model_type).where(UserModel.model_key == wish.model_key)
        ).one()
    provider = connections.provider_for(model_type)
    rules = connections.start_rules(provider.name)
    return open_training(
        connections.database,
        provider,
        wish,
        trainer=rules.trainer,
        owner=rules.owner,
        now=connections.now(),
        emit=emit,
    )


def submit(connections: Connections, run_id: int, *, emit: bool = True) -> SubmissionResult:
    """Send one packed training, as the settings allow."""
    provider = provider_of(connections, run_id)
    return submit_training(
        connections.database,
        connections.store,
        provider,
        run_id,
        connections.start_rules(provider.name).submission,
        emit=emit,
    )


def newest_run(session: Session, model_key: str) -> TrainingRun | None:
    """The model's latest attempt."""
    return session.scalars(
        select(TrainingRun)
        .join(UserModel, UserModel.id == TrainingRun.model_id)
        .where(UserModel.model_key == model_key)
        .order_by(TrainingRun.attempt.desc())
        .limit(1)
    ).one_or_none()
