"""The start of everything that is ready, as one batch: a model in trouble costs only itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import islice

from sqlalchemy import exists, select

from lora_pipeline.archives import TrainingZipError
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import SelfieUpload, UserModel
from lora_pipeline.image_sets.freezing import FrozenSet, SetBlocked
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.readiness import ready_models, why_draft_ready
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.providers.protocol import ProviderError, Throttled
from lora_pipeline.trainings.batches import BatchReport, Failure, batch_lease
from lora_pipeline.trainings.controls import submission_switch
from lora_pipeline.trainings.intents import TrainingRefused, TrainingWish, untrained_sets
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.packing import pack_training
from lora_pipeline.trainings.parameters import ParametersRefused
from lora_pipeline.trainings.starting import freeze, newest_run, submit, take_in_arrivals, train
from lora_pipeline.trainings.submission import ASKED_BY_SENSOR, Submission, SubmissionResult, submittable
from lora_pipeline.trainings.throttling import Brake

log = logging.getLogger(__name__)

LEASE = "start trainings"
ASKED_FOR = "request"
# Waiting for a provider's answers, not computing: what is computed is bounded inside the intake.
_THREADS = 8
_HANDED_OUT = 500
_NAMED = 10
# A file that cannot be read or stored is tried again for this long before its set goes on without it.
_PATIENCE = timedelta(minutes=20)
# For a provider that throttles, in all: a thousand trainings are more creations than Replicate takes a minute.
_WAITS = timedelta(minutes=10)

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


class _Stage(StrEnum):
    """How far a model's start has come."""

    OPENED = "opened"
    FROZEN = "frozen"
    READY = "ready"


@dataclass(frozen=True)
class _NotYet:
    """The model starts nothing now, and that is no failure."""

    reason: str


@dataclass(frozen=True)
class _Throttled:
    """The provider wants this model later. Nothing was started."""

    reason: str


@dataclass(frozen=True)
class WorkToStart:
    """What a tick of the image-set sensor found: the lease for a batch, or why there is none."""

    lease: str | None
    explanation: str


def work_to_start(connections: Connections) -> WorkToStart:
    """Whether a batch is due: a set that is ready, or a training that was opened and not sent.

    Without permission to spend (LORA_AUTO_SUBMIT, or a simulated provider) only what a person asked for counts.
    """
    database, now = connections.database, connections.now()
    with database.read() as session:
        switch = submission_switch(session)
    if switch.paused:
        return WorkToStart(None, f"submissions are paused: {switch.reason}")
    due = _due(connections)
    if database.observing:
        return WorkToStart(None, f"observing: {len(due)} would be started{_shown(due)}")
    if not due:
        allowed = connections.may_submit_by_itself()
        return WorkToStart(
            None,
            "no image set is ready" if allowed else "LORA_AUTO_SUBMIT is off and nobody asked for a training",
        )
    lease = take_lease(database, LEASE, connections.settings.lease, now)
    return WorkToStart(lease, "a starting batch is at work already")


def _shown(due: Mapping[str, _Stage]) -> str:
    keys = list(due)
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f" ({', '.join(keys[:_NAMED])}{more})" if keys else ""


def start_ready(
    connections: Connections, *, lease: str | None, say: Callable[[str], object] = log.info
) -> BatchReport:
    """Start everything that is ready, as one batch: a model in trouble costs only itself.

    Where the provider throttles, the batch waits as long as it asks and goes on; a wait that could outlast the
    lease ends it, and the next batch takes up the rest.
    """
    done: list[str] = []
    failures: dict[str, Failure] = {}
    tried: set[str] = set()
    if connections.database.observing:
        say(work_to_start(connections).explanation)
        return BatchReport((), (), "submitted")
    brake = Brake(longest=connections.settings.lease / 2, together=_WAITS)
    with batch_lease(connections, LEASE, lease) as held:
        while held.renew() and brake.wait():
            work = {key: stage for key, stage in _due(connections).items() if key not in tried}
            if not work:
                break
            tried.update(work)
            for model_key, outcome in _start_all(connections, work, brake):
                held.renew()
                failures.pop(model_key, None)
                if isinstance(outcome, _NotYet):
                    say(f"{model_key}: {outcome.reason}")
                elif isinstance(outcome, Failure):
                    failures[model_key] = outcome
                elif isinstance(outcome, _Throttled):
                    failures[model_key] = Failure(model_key, outcome.reason)
                    tried.discard(model_key)
                elif outcome.outcome is Submission.SUBMITTED:
                    say(f"{model_key}: submitted as {outcome.training_id}")
                    done.append(model_key)
                elif outcome.outcome is not Submission.TAKEN:
                    failures[model_key] = Failure(model_key, f"{outcome.outcome.value}: {outcome.reason}")
        held.keep = bool(failures) and not done
    return BatchReport(tuple(done), tuple(failures.values()), "submitted")


def _due(connections: Connections) -> dict[str, _Stage]:
    """Models with something to start: a training opened and not sent, a frozen set, a set that became ready.

    Where nothing may be spent without being asked, only what a person asked for.
    """
    settings, database, now = connections.settings, connections.database, connections.now()
    by_itself = database.observing or connections.may_submit_by_itself()
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
    # The later stage of a model wins: what was opened is only to be sent.
    due = dict.fromkeys(ready, _Stage.READY)
    due |= dict.fromkeys(untrained_sets(database, by_itself=by_itself), _Stage.FROZEN)
    due |= dict.fromkeys(submittable(database, now, by_itself=by_itself), _Stage.OPENED)
    return due


def _start_all(
    connections: Connections, work: dict[str, _Stage], brake: Brake
) -> Iterator[tuple[str, SubmissionResult | Failure | _NotYet | _Throttled]]:
    def one(model_key: str) -> tuple[str, SubmissionResult | Failure | _NotYet | _Throttled]:
        if not brake.wait():
            return model_key, _NotYet("left to the next batch, for the provider throttles")
        try:
            outcome = _start_one(connections, model_key, work[model_key])
        except Throttled as error:
            brake.pull(error.retry_after)
            return model_key, _Throttled(str(error))
        except _EXPECTED_TROUBLE as error:
            return model_key, Failure(model_key, str(error))
        if isinstance(outcome, SubmissionResult) and outcome.retry_after is not None:
            brake.pull(outcome.retry_after)
            return model_key, _Throttled(f"{outcome.outcome.value}: {outcome.reason}")
        return model_key, outcome

    waiting = iter(work)
    with ThreadPoolExecutor(_THREADS) as pool:
        while handed_out := list(islice(waiting, _HANDED_OUT)):
            yield from pool.map(one, handed_out)


def _start_one(connections: Connections, model_key: str, stage: _Stage) -> SubmissionResult | _NotYet:
    if stage is _Stage.OPENED:
        with connections.database.read() as session:
            run = newest_run(session, model_key)
        assert run is not None
        pack_training(connections.database, connections.store, run.id)
        return submit(connections, run.id)
    if stage is _Stage.READY:
        take_in_arrivals(connections, model_key)
        objection = _objection(connections, model_key)
        if objection is not None:
            return objection
    return _train_frozen(connections, model_key, freeze(connections, model_key))


def _objection(connections: Connections, model_key: str) -> _NotYet | None:
    """Why a set that looked ready from its listing is not, now that every photograph has been looked at.

    Four good photographs among ten files, or half a set whose other half could not be read this minute, are
    not what somebody wants to pay for.
    """
    settings, now = connections.settings, connections.now()
    reason = why_draft_ready(
        connections.database,
        model_key,
        ready_images=settings.ready_images,
        ready_quiet=settings.ready_quiet,
        now=now,
    )
    if reason is None:
        return _NotYet("not enough usable photographs, or they were still arriving")
    waiting = exists().where(
        SelfieUpload.model_id == UserModel.id,
        SelfieUpload.processing_status == "pending",
        SelfieUpload.created_at > now - _PATIENCE,
    )
    with connections.database.read() as session:
        held_up = session.scalar(select(waiting).where(UserModel.model_key == model_key))
    return _NotYet("some files could not be read yet and are tried again") if held_up else None


def _train_frozen(connections: Connections, model_key: str, frozen: FrozenSet) -> SubmissionResult | _NotYet:
    if frozen.unchanged and not frozen.asked_for:
        return _NotYet("trained on these very photographs already")
    asked_by = ASKED_FOR if frozen.asked_for else ASKED_BY_SENSOR
    return train(connections, TrainingWish(model_key, frozen.image_set_id, asked_by))
