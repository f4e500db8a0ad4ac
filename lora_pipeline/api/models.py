"""One model: what it serves and served, the choices about it, and its trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from sqlalchemy import select

from lora_pipeline.access.callers import Caller, reachable_model, run_of
from lora_pipeline.api.answers import (
    ActivateRequest,
    ActivationAnswer,
    CancelAnswer,
    ChoiceAnswer,
    HistoryAnswer,
    ModelsAnswer,
    ModelSummary,
    ReasonRequest,
    ResolveAnswer,
    RetryAnswer,
    RollbackRequest,
    RunRequest,
    TrainingAnswer,
    TrainingsAnswer,
    VersionAnswer,
    VersionsAnswer,
)
from lora_pipeline.api.authentication import KnownCaller
from lora_pipeline.api.downloads import weights_link
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import UserModel
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.listing import list_trainings
from lora_pipeline.trainings.retrying import retry_now
from lora_pipeline.trainings.runs import provider_of
from lora_pipeline.versions.history import history_of, what_was_live
from lora_pipeline.versions.listing import versions_of
from lora_pipeline.versions.pinning import (
    Choice,
    Chooser,
    activate_version,
    pin_model,
    roll_back,
    unpin_model,
)
from lora_pipeline.versions.resolve import resolve

router = APIRouter(prefix="/api/models", tags=["models"])

ModelId = Annotated[
    str, Path(min_length=1, max_length=320, description="As the start of its training answered.")
]
# Everything in them may be left out, and so may they.
Reason = Annotated[ReasonRequest, Body(default_factory=ReasonRequest)]
Rollback = Annotated[RollbackRequest, Body(default_factory=RollbackRequest)]
WhichRun = Annotated[RunRequest, Body(default_factory=RunRequest)]
_MOST_MODELS = 500


@router.get("")
def models(
    caller: KnownCaller,
    services: Shared,
    user_id: Annotated[str | None, Query(alias="userId", max_length=64)] = None,
) -> ModelsAnswer:
    """The caller's models, newest first; an administrator's `userId` asks for that user's."""
    question = select(UserModel).order_by(UserModel.id.desc()).limit(_MOST_MODELS)
    if not caller.is_admin:
        question = question.where(UserModel.user_id == caller.user_id)
    if user_id is not None:
        question = question.where(UserModel.user_id == user_id)
    with services.connections.database.read() as session:
        return ModelsAnswer(
            models=[
                ModelSummary(
                    model_id=model.model_key,
                    model_name=model.model_name,
                    model_type=model.model_type,
                    trigger_word=model.trigger_word,
                    status=model.training_status,
                    created_at=model.created_at,
                )
                for model in session.scalars(question)
            ]
        )


@router.get("/{model}/resolve")
def resolve_model(model: ModelId, caller: KnownCaller, services: Shared) -> ResolveAnswer:
    """The version, weights, trigger word and LoRA scale to generate with now. Ask before each generation."""
    connections = services.connections
    found = resolve(connections, _key(services, caller, model))
    values = asdict(found)
    key, number = values.pop("model_key"), values.pop("version")
    link = weights_link(services, key, number, found.weights_url)
    if link is not None:
        values |= {"weights_url": link.url, "weights_expire_at": link.expires_at}
    return ResolveAnswer(model_id=key, version=_name(number), **values)


@router.get("/{model}/versions")
def versions(model: ModelId, caller: KnownCaller, services: Shared) -> VersionsAnswer:
    """Every registered version, newest first."""
    with services.connections.database.read() as session:
        row = reachable_model(session, caller, model)
        found = versions_of(session, row)
    return VersionsAnswer(
        model_id=row.model_key, versions=[VersionAnswer.model_validate(version) for version in found]
    )


@router.get("/{model}/history")
def history(
    model: ModelId,
    caller: KnownCaller,
    services: Shared,
    at: Annotated[
        str | None, Query(max_length=40, description="What was live then: a day or a moment.")
    ] = None,
) -> HistoryAnswer:
    """Which version was served from when to when, by whom and why, newest first."""
    connections = services.connections
    with connections.database.read() as session:
        row = reachable_model(session, caller, model)
        if at is None:
            period, found = None, history_of(session, row.id)
        else:
            period, found = what_was_live(session, row.id, at, connections.now())
    return HistoryAnswer(
        model_id=row.model_key,
        at=str(period) if period is not None else None,
        history=[ActivationAnswer(**{**asdict(one), "version": f"V{one.version}"}) for one in found],
    )


@router.post("/{model}/activate")
def activate(model: ModelId, wanted: ActivateRequest, caller: KnownCaller, services: Shared) -> ChoiceAnswer:
    """Serve this version from now on. Anything but the newest is pinned."""

    def choose(database: Database, key: str, by: Chooser) -> Choice:
        return activate_version(database, key, wanted.version, by)

    return _choice(services, caller, model, wanted.reason, choose)


@router.post("/{model}/pin")
def pin(model: ModelId, wanted: Reason, caller: KnownCaller, services: Shared) -> ChoiceAnswer:
    """Keep the version that is served: no retrain and no sync replaces it."""
    return _choice(services, caller, model, wanted.reason, pin_model)


@router.post("/{model}/unpin")
def unpin(model: ModelId, wanted: Reason, caller: KnownCaller, services: Shared) -> ChoiceAnswer:
    """Let the next retrain or sync replace the served version again."""
    return _choice(services, caller, model, wanted.reason, unpin_model)


@router.post("/{model}/rollback")
def rollback(model: ModelId, wanted: Rollback, caller: KnownCaller, services: Shared) -> ChoiceAnswer:
    """Serve, pinned, the version that was served before. Repeated, it goes further back."""

    def choose(database: Database, key: str, by: Chooser) -> Choice:
        return roll_back(database, key, by, only_from=wanted.only_from)

    return _choice(services, caller, model, wanted.reason, choose)


@router.get("/{model}/trainings")
def trainings(model: ModelId, caller: KnownCaller, services: Shared) -> TrainingsAnswer:
    """The model's trainings, newest first."""
    database = services.connections.database
    with database.read() as session:
        row = reachable_model(session, caller, model)
    found = list_trainings(database, model_id=row.id)
    return TrainingsAnswer(
        model_id=row.model_key, trainings=[_training(services, training) for training in found]
    )


@router.post("/{model}/cancel")
def cancel(model: ModelId, wanted: WhichRun, caller: KnownCaller, services: Shared) -> CancelAnswer:
    """End a training: at once where nothing was sent; a running one bills until the provider says it ended."""
    connections = services.connections
    run_id = _run(services, caller, model, wanted)
    with services.provider_calls.place():
        done = cancel_training(
            connections.database, provider_of(connections, run_id), run_id, caller.actor, connections.now
        )
    return CancelAnswer(
        model_id=done.model_key, run=done.run_id, outcome=done.outcome.value, message=done.reason
    )


@router.post("/{model}/retry")
def retry(model: ModelId, wanted: WhichRun, caller: KnownCaller, services: Shared) -> RetryAnswer:
    """Try again what ended badly: a new attempt on the same images, or the weights where only they were refused."""
    run_id = _run(services, caller, model, wanted)
    with services.starts.place():
        done, sent = retry_now(services.connections, run_id, caller.actor)
    return RetryAnswer(
        model_id=done.model_key,
        run=done.run_id,
        training_id=sent.training_id if sent else None,
        new_attempt=done.new_attempt,
        message=(sent.reason if sent else None) or done.explanation,
    )


def _choice(
    services: Services,
    caller: Caller,
    model: str,
    reason: str,
    choose: Callable[[Database, str, Chooser], Choice],
) -> ChoiceAnswer:
    connections = services.connections
    by = Chooser(caller.actor, reason, connections.now())
    done = choose(connections.database, _key(services, caller, model), by)
    return ChoiceAnswer(
        model_id=done.model_key,
        version=f"V{done.version}",
        previous=_name(done.previous),
        changed=done.changed,
        pinned=done.pinned,
        explanation=done.explanation,
        warnings=list(done.warnings),
    )


def _key(services: Services, caller: Caller, model: str) -> str:
    with services.connections.database.read() as session:
        return reachable_model(session, caller, model).model_key


def _run(services: Services, caller: Caller, model: str, wanted: RunRequest) -> int:
    with services.connections.database.read() as session:
        return run_of(session, reachable_model(session, caller, model), wanted.run).id


def _training(services: Services, training: dict[str, Any]) -> TrainingAnswer:
    path = f"/loss-curves/{training['run']}.png"
    return TrainingAnswer.model_validate(
        {
            **training,
            "loss_curve_url": services.signed(path).url if training["loss_history"] else None,
        }
    )


def _name(number: int | None) -> str | None:
    return f"V{number}" if number is not None else None
