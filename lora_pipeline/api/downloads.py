"""Weights over short-lived signed links."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from lora_pipeline.access.callers import reachable_model
from lora_pipeline.api.answers import LinkAnswer
from lora_pipeline.api.authentication import KnownCaller, LinkHolder
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.database.tables import ModelVersion, UserModel
from lora_pipeline.objects import ObjectNotFound
from lora_pipeline.versions.resolve import WEIGHTS_LIFE
from lora_pipeline.versions.version_lookup import find_version

router = APIRouter(tags=["downloads"])

_MEDIA_TYPE = "application/octet-stream"


@router.get("/api/models/{model}/versions/{version}/weights")
def weights(
    model: Annotated[str, Path(min_length=1, max_length=320)],
    version: Annotated[str, Path(min_length=1, max_length=400)],
    caller: KnownCaller,
    services: Shared,
) -> LinkAnswer:
    """A link to the verified weights of a version, for a while."""
    connections = services.connections
    with connections.database.read() as session:
        row = reachable_model(session, caller, model)
        found = find_version(session, row, version)
        key, number, address = row.model_key, found.number, found.weights_url
    stored = connections.store.key_of(address) if address else None
    if stored is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"the weights of V{number} are not archived here yet")
    url = connections.store.presign_get(stored, WEIGHTS_LIFE)
    if url is not None:
        return LinkAnswer(url=url, expires_at=connections.now() + WEIGHTS_LIFE)
    link = weights_link(services, key, number, address)
    assert link is not None
    return link


@router.get(
    "/weights/{model}/{number}.safetensors",
    response_class=StreamingResponse,
    responses={200: {"content": {_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
)
def weights_file(
    model: Annotated[str, Path(max_length=100)],
    number: Annotated[int, Path(ge=1, lt=2**31)],
    _: LinkHolder,
    services: Shared,
) -> StreamingResponse:
    """The weights that a signed link is for."""
    connections = services.connections
    question = (
        select(ModelVersion.weights_url)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .where(UserModel.model_key == model, ModelVersion.number == number)
    )
    with connections.database.read() as session:
        address = session.scalars(question).one_or_none()
    stored = connections.store.key_of(address) if address else None
    try:
        if stored is not None:
            size = connections.store.head(stored).size
            headers = {
                "Content-Length": str(size),
                "Content-Disposition": f'attachment; filename="{model}-V{number}.safetensors"',
                "Cache-Control": "private, no-store",
                "X-Content-Type-Options": "nosniff",
            }
            return StreamingResponse(
                connections.store.stream(stored), media_type=_MEDIA_TYPE, headers=headers
            )
    except ObjectNotFound:
        pass
    raise Problem(HTTPStatus.NOT_FOUND, "these weights are not archived here any more")


def weights_link(
    services: Services, model_key: str, number: int | None, address: str | None
) -> LinkAnswer | None:
    """Our own signed link to weights in a store that cannot sign; None where the address serves by itself."""
    store = services.connections.store
    if number is None or address is None or store.can_presign or store.key_of(address) is None:
        return None
    return services.signed(f"/weights/{model_key}/{number}.safetensors", WEIGHTS_LIFE)
