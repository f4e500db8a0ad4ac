"""The start of trainings: from photographs that have arrived to a training the provider knows.

One model, asked for by a person (`start_training`), step by step for whoever materialises its assets by hand,
or everything that is ready as one batch (`start_ready`). All three go through the same steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.archives import TrainingZipError
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ImageSet, ModelVersion, TrainingRun, UserModel
from lora_pipeline.image_sets.freezing import SetBlocked, freeze_set, latest_frozen_set
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import take_in_from_inbox
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.readiness import ready_models
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.trainings.batches import BatchReport, Failure, batch_lease
from lora_pipeline.trainings.controls import submission_switch
from lora_pipeline.trainings.facts import image_set_event, training_event, zip_event
from lora_pipeline.trainings.finalisation import finalise_training, trained_event
from lora_pipeline.trainings.finishing import finalisation_rules
from lora_pipeline.trainings.intents import (
    OpenedTraining,
    TrainingRefused,
    TrainingWish,
    open_training,
    untrained_sets,
)
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.trainings.outbox import AssetEvent
from lora_pipeline.trainings.packing import pack_training
from lora_pipeline.trainings.parameters import DEFAULT_POLICY, ParametersRefused
from lora_pipeline.trainings.submission import (
    ASKED_BY_SENSOR,
    Submission,
    SubmissionResult,
    SubmissionRules,
    submit_training,
    submittable,
)

log = logging.getLogger(__name__)

LEASE = "start trainings"
# Waiting for a provider's answers, not computing: what is computed is bounded inside the intake.
_THREADS = 8
_ROUND = 500

_EXPECTED_TROUBLE = (
    IntakeError,
    SetBlocked,
    TrainingRefused,
    ParametersRefused,
    TrainingZipError,
    ObjectStoreError,
    ProviderError,
)
"""What one model can run into without being a defect of this program; the others go on."""


@dataclass(frozen=True)
class StartRules:
    """What the settings say about starting."""

    trainer: str
    owner: str | None
    profile: ImageProfile
    submission: SubmissionRules


@dataclass(frozen=True)
class PreparedSet:
    """A frozen image set, and the event it is worth."""

    image_set_id: int
    unchanged: bool
    """The model's last training was of this very content."""
    asked_for: bool
    event: AssetEvent


@dataclass(frozen=True)
class WorkToStart:
    """What a tick of the image-set sensor found: the lease for a batch, or why there is none."""

    lease: str | None
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
    database, store, profile = connections.database, connections.store, connections.start_rules.profile
    take_in_from_inbox(database, store, connections.inbox, model_key, profile=profile)
    frozen = freeze_set(database, store, model_key, profile=profile)
    with database.read() as session:
        image_set = session.get_one(ImageSet, frozen.image_set_id)
        asked = image_set.asked_for_at is not None
        return PreparedSet(
            image_set.id, frozen.unchanged, asked, image_set_event(session, image_set, model_key)
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


def submit_packed(connections: Connections, model_key: str) -> AssetEvent:
    """Submit the model's packed training, or report the one that is under way; the event of the training."""
    with connections.database.read() as session:
        run = _newest_run(session, model_key)
    if run is None or run.state not in OPEN:
        raise TrainingRefused(f"{model_key} has no training to submit: materialise training_zip first")
    result = _submit(connections, run.id, emit=False)
    if result.outcome in (Submission.REFUSED, Submission.DEFERRED, Submission.UNKNOWN):
        raise TrainingRefused(f"{model_key}: {result.outcome.value}: {result.reason}")
    with connections.database.read() as session:
        return training_event(session.get_one(TrainingRun, run.id), model_key)


def finish_if_succeeded(connections: Connections, model_key: str) -> FinishedLora:
    """Finalise the model's newest training if it has succeeded; otherwise say who will."""
    with connections.database.read() as session:
        run = _newest_run(session, model_key)
    if run is None:
        return FinishedLora(None, f"{model_key} has never been trained")
    if run.state == TrainingState.SUCCEEDED:
        finalise_training(
            connections.database,
            connections.store,
            connections.provider,
            run.id,
            finalisation_rules(connections),
            emit=False,
        )
    with connections.database.read() as session:
        run = session.get_one(TrainingRun, run.id)
        if run.state != TrainingState.FINALISED:
            waiting = f"training {run.training_id or run.id} is {run.state}"
            return FinishedLora(None, f"{waiting}; training_status_sensor finishes it and reports this asset")
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
) -> SubmissionResult:
    """Train one model now because a person asked: intake, checks, ZIP, submission. Returns without waiting.

    Raises what stands in the way (`SetBlocked`, `TrainingRefused`, `ParametersRefused`, …); nothing has been
    paid then.
    """
    say("looking at the photographs")
    prepared = prepare_image_set(connections, model_key)
    wish = TrainingWish(model_key, prepared.image_set_id, asked_by, policy, dict(overrides or {}))
    return _train(connections, wish, say)


def work_to_start(connections: Connections) -> WorkToStart:
    """Whether a batch is due: a set that is ready, or a training that was opened and not sent.

    Without permission to spend (LORA_AUTO_SUBMIT, or a simulated provider) only what a person asked for counts.
    """
    database, now = connections.database, connections.now()
    with database.read() as session:
        switch = submission_switch(session)
    if switch.paused:
        return WorkToStart(None, f"submissions are paused: {switch.reason}")
    if not _due(connections):
        allowed = connections.may_submit_by_itself()
        return WorkToStart(
            None,
            "no image set is ready" if allowed else "LORA_AUTO_SUBMIT is off and nobody asked for a training",
        )
    lease = take_lease(database, LEASE, connections.settings.lease, now)
    return WorkToStart(lease, "a starting batch is at work already")


def start_ready(
    connections: Connections, *, lease: str | None, say: Callable[[str], object] = log.info
) -> BatchReport:
    """Start everything that is ready, as one batch: a model in trouble costs only itself."""
    done: list[str] = []
    failures: list[Failure] = []
    tried: set[str] = set()
    with batch_lease(connections, LEASE, lease) as held:
        while held.renew():
            work = [key for key in _due(connections) if key not in tried]
            if not work:
                break
            tried.update(work)
            for model_key, outcome in _start_all(connections, work):
                held.renew()
                if outcome is None:
                    say(f"{model_key}: trained on these very photographs already")
                elif isinstance(outcome, Failure):
                    failures.append(outcome)
                elif outcome.outcome is Submission.SUBMITTED:
                    say(f"{model_key}: submitted as {outcome.training_id}")
                    done.append(model_key)
                elif outcome.outcome is not Submission.TAKEN:
                    failures.append(Failure(model_key, f"{outcome.outcome.value}: {outcome.reason}"))
        held.keep = bool(failures) and not done
    return BatchReport(tuple(done), tuple(failures), "submitted")


def _due(connections: Connections) -> list[str]:
    """Models with something to start: a training opened and not sent, a frozen set, a set that became ready.

    Where nothing may be spent without being asked, only what a person asked for.
    """
    settings, database, now = connections.settings, connections.database, connections.now()
    by_itself = connections.may_submit_by_itself()
    opened = submittable(database, now, _ROUND, by_itself=by_itself)
    readiness = ready_models(
        database,
        connections.inbox,
        ready_images=settings.ready_images,
        ready_quiet=settings.ready_quiet,
        now=now,
    )
    for problem in readiness.problems:
        log.warning("%s", problem)
    ready = [model.model_key for model in readiness.ready if by_itself or model.reason == "asked for"]
    frozen = untrained_sets(database, by_itself=by_itself, limit=_ROUND)
    return list(dict.fromkeys([*opened, *frozen, *ready]))[:_ROUND]


def _start_all(
    connections: Connections, model_keys: list[str]
) -> Iterator[tuple[str, SubmissionResult | Failure | None]]:
    def one(model_key: str) -> tuple[str, SubmissionResult | Failure | None]:
        try:
            return model_key, _start_one(connections, model_key)
        except _EXPECTED_TROUBLE as error:
            return model_key, Failure(model_key, str(error))

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(one, model_keys)


def _start_one(connections: Connections, model_key: str) -> SubmissionResult | None:
    """Start one model; None where its photographs are those it was trained on last."""
    with connections.database.read() as session:
        run = _newest_run(session, model_key)
    if run is not None and run.state in (TrainingState.READY, TrainingState.PACKED):
        pack_training(connections.database, connections.store, run.id)
        return _submit(connections, run.id)
    prepared = prepare_image_set(connections, model_key)
    if prepared.unchanged and not prepared.asked_for:
        return None
    return _train(connections, TrainingWish(model_key, prepared.image_set_id, ASKED_BY_SENSOR))


def _train(
    connections: Connections, wish: TrainingWish, say: Callable[[str], object] = lambda _: None
) -> SubmissionResult:
    opened = _open(connections, wish)
    say("packing the training ZIP")
    pack_training(connections.database, connections.store, opened.run_id)
    say("submitting")
    return _submit(connections, opened.run_id)


def _open(connections: Connections, wish: TrainingWish, *, emit: bool = True) -> OpenedTraining:
    rules = connections.start_rules
    return open_training(
        connections.database,
        connections.provider,
        wish,
        trainer=rules.trainer,
        owner=rules.owner,
        now=connections.now(),
        emit=emit,
    )


def _submit(connections: Connections, run_id: int, *, emit: bool = True) -> SubmissionResult:
    return submit_training(
        connections.database,
        connections.store,
        connections.provider,
        run_id,
        connections.start_rules.submission,
        emit=emit,
    )


def _newest_run(session: Session, model_key: str) -> TrainingRun | None:
    return session.scalars(
        select(TrainingRun)
        .join(UserModel, UserModel.id == TrainingRun.model_id)
        .where(UserModel.model_key == model_key)
        .order_by(TrainingRun.attempt.desc())
        .limit(1)
    ).one_or_none()
