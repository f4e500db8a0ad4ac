"""Starting a training, following it, and bringing its version up to date: what the applications' front ends call."""

from __future__ import annotations

import hashlib
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from lora_pipeline.access import repeats
from lora_pipeline.access.callers import Caller, active_model, reachable_model, user_of
from lora_pipeline.api.answers import (
    ModelDetails,
    ProgressAnswer,
    ServedAnswer,
    StartAnswer,
    StartRequest,
    SyncAnswer,
    SyncRequest,
)
from lora_pipeline.api.authentication import KnownCaller
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.api.uploads import own_upload, uploaded_image
from lora_pipeline.database.tables import UserModel
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.providers.secrets import scrubbed
from lora_pipeline.trainings.asking import AskedTraining, WantedModel, ask_for_training_of
from lora_pipeline.trainings.standing import Standing, standing_of
from lora_pipeline.trainings.submission import Submission, SubmissionResult
from lora_pipeline.versions.sync import sync_model

router = APIRouter(prefix="/api/training", tags=["training"])

_WAITS = HTTPStatus.ACCEPTED
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1, max_length=200, description="Sent again with the same request, it has no second effect."
    ),
]


@router.post(
    "/start",
    status_code=HTTPStatus.CREATED,
    response_model=StartAnswer,
    responses={
        _WAITS.value: {"model": StartAnswer, "description": "Asked for; it is not with the provider yet."}
    },
)
def start(
    wanted: StartRequest, caller: KnownCaller, services: Shared, idempotency_key: IdempotencyKey = None
) -> Response:
    """Train a model on these images: the caller's one of this name, or a new one."""
    try:
        user_id = user_of(caller, wanted.user_id)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    if idempotency_key is None:
        return _started(_start(wanted, user_id, caller, services, since=None))
    database = services.connections.database
    request = repeats.fingerprint(wanted.model_dump(mode="json"))
    claim = repeats.begin(database, user_id, idempotency_key, request, services.connections.now())
    if claim.answer is not None:
        return _started(claim.answer)
    answer = None
    try:
        answer = _start(wanted, user_id, caller, services, since=claim.since)
    finally:
        repeats.end(database, user_id, idempotency_key, answer)
    return _started(answer)


@router.get(
    "/progress",
    response_model=ProgressAnswer,
    responses={304: {"description": "Nothing has changed since the ETag in If-None-Match."}},
)
def progress(
    model_id: Annotated[str, Query(alias="modelId", min_length=1, max_length=320)],
    request: Request,
    caller: KnownCaller,
    services: Shared,
) -> Response:
    """How a model's training stands. Cheap: ask every few seconds, with If-None-Match where you can."""
    connections, board = services.connections, services.board
    now = connections.now()
    with connections.database.read() as session:
        condition = UserModel.model_key == model_id
        if caller.is_admin:
            condition = UserModel.id == reachable_model(session, caller, model_id).id
        else:
            condition &= UserModel.user_id == caller.user_id
        standing = board.shown(standing_of(session, condition, now, board.usual_seconds()))
    refresher = services.refreshers.get(standing.provider) if standing.provider else None
    refresh = BackgroundTask(refresher.work) if refresher and refresher.wanted(standing, now) else None
    body = _progress(standing).model_dump_json(by_alias=True).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers, background=refresh)
    return Response(body, media_type="application/json", headers=headers, background=refresh)


@router.post("/sync-version")
def sync_version(
    wanted: Annotated[SyncRequest, Body(default_factory=SyncRequest)], caller: KnownCaller, services: Shared
) -> SyncAnswer:
    """Hold a model's version against the provider's latest, update it where that is needed, and say whether it was."""
    connections = services.connections
    with connections.database.read() as session:
        if wanted.model_id is None:
            model_key = active_model(session, caller).model_key
        else:
            model_key = reachable_model(session, caller, wanted.model_id).model_key
    with services.provider_calls.place():
        found = sync_model(connections, model_key, actor=caller.actor).as_json()
    return SyncAnswer(
        model_id=model_key,
        update_needed=found["updateNeeded"],
        updated=found["updated"],
        outcome=found["outcome"],
        verdict=found["verdict"],
        current_version=found["currentVersion"],
        previous_version=found["previousVersion"],
        latest_version=found["latestVersion"],
        message=found["detail"],
        advice=found["advice"],
    )


def _start(
    wanted: StartRequest, user_id: str, caller: Caller, services: Services, since: datetime | None
) -> dict[str, Any]:
    connections = services.connections
    public_url = connections.settings.resolved_public_url
    uploads, urls = [], []
    for url in wanted.image_urls:
        own = own_upload(url, public_url)
        if own is None:
            urls.append(url)
        else:
            uploads.append(own)
    with services.starts.place():
        # Without a provider nothing is taken in: SettingsError says what to set.
        _ = connections.provider_for(wanted.model_type)
        asked = ask_for_training_of(
            connections,
            WantedModel(user_id, wanted.model_name, wanted.model_type, wanted.gender),
            uploads,
            urls,
            actor=caller.actor,
            since=since,
        )
        result, trouble = None, "the training is being sent to the provider"
        try:
            result = services.starter.start(asked, caller.actor)
        except (ProviderError, ObjectStoreError) as error:
            # It is asked for, durably: saying that it failed would be untrue.
            trouble = scrubbed(f"the training starts as soon as it can: {error}")
    return _start_answer(services, asked, result, trouble).model_dump(mode="json", by_alias=True)


def _start_answer(
    services: Services, asked: AskedTraining, result: SubmissionResult | None, trouble: str
) -> StartAnswer:
    connections = services.connections
    if result is not None and result.outcome is Submission.REFUSED:
        raise Problem(HTTPStatus.CONFLICT, f"the provider refused the training: {result.reason}")
    with connections.database.read() as session:
        condition = UserModel.model_key == asked.model_key
        standing = standing_of(session, condition, connections.now(), services.board.usual_seconds())
    if standing.training_id is not None:
        trouble = "the provider has the training"
    elif result is not None and result.reason:
        trouble = result.reason
    return StartAnswer(
        model_id=asked.model_key,
        training_id=standing.training_id,
        trigger_word=asked.trigger_word,
        status=standing.status,
        message=standing.error or standing.hold_reason or trouble,
        images=[uploaded_image(services, file) for file in asked.files],
    )


def _started(answer: dict[str, Any]) -> Response:
    status = HTTPStatus.CREATED if answer["trainingId"] else _WAITS
    return JSONResponse(answer, status_code=status)


def _progress(standing: Standing) -> ProgressAnswer:
    served = None
    if standing.served_version is not None:
        served = ServedAnswer(
            version=f"V{standing.served_version}", provider_version=standing.provider_version
        )
    return ProgressAnswer(
        status=standing.status,
        progress=standing.progress,
        estimated=standing.estimated,
        seconds_left=standing.seconds_left,
        training_id=standing.training_id,
        attempt=standing.attempt,
        error=standing.error,
        hold_reason=standing.hold_reason,
        started_at=standing.started_at,
        completed_at=standing.completed_at,
        model=ModelDetails(
            model_id=standing.model_key,
            model_name=standing.model_name,
            model_type=standing.model_type,
            gender=standing.gender,
            trigger_word=standing.trigger_word,
            served=served,
        ),
    )
