"""Pictures: contact sheets and loss curves.

Pictures of people are served from here and linked, never copied elsewhere.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select

from lora_pipeline.access.callers import Caller
from lora_pipeline.api.authentication import Viewer
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Shared
from lora_pipeline.database.tables import ImageSet, TrainingRun, UserModel
from lora_pipeline.objects import ObjectNotFound
from lora_pipeline.trainings.loss_picture import loss_picture

router = APIRouter(tags=["pictures"])

# Never in a shared cache; for a while in the browser's, so that a page with many of them reloads quickly.
_HEADERS = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
RowNumber = Annotated[int, Path(ge=1, lt=2**63)]


@router.get(
    "/contact-sheets/{image_set_id}.jpg",
    response_class=StreamingResponse,
    responses={200: {"content": {"image/jpeg": _BINARY}}},
)
def contact_sheet(image_set_id: RowNumber, who: Viewer, services: Shared) -> StreamingResponse:
    """The small pictures of one image set, with each one's verdict."""
    connections = services.connections
    question = (
        select(ImageSet.contact_sheet_key, UserModel.user_id)
        .join(UserModel, UserModel.id == ImageSet.model_id)
        .where(ImageSet.id == image_set_id)
    )
    with connections.database.read() as session:
        row = session.execute(question).one_or_none()
    if row is None or not _may_see(who, row.user_id):
        raise Problem(HTTPStatus.NOT_FOUND, f"image set {image_set_id} does not exist")
    if row.contact_sheet_key is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"image set {image_set_id} has no contact sheet yet")
    try:
        content = connections.store.stream(row.contact_sheet_key)
    except ObjectNotFound:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"the contact sheet of image set {image_set_id} has been deleted"
        ) from None
    return StreamingResponse(content, media_type="image/jpeg", headers=_HEADERS)


@router.get(
    "/loss-curves/{run_id}.png",
    response_class=Response,
    responses={200: {"content": {"image/png": _BINARY}}},
)
def loss_curve(run_id: RowNumber, who: Viewer, services: Shared) -> Response:
    """The loss curve of one training run."""
    question = select(TrainingRun.loss_history, TrainingRun.user_id).where(TrainingRun.id == run_id)
    with services.connections.database.read() as session:
        row = session.execute(question).one_or_none()
    if row is None or not _may_see(who, row.user_id):
        raise Problem(HTTPStatus.NOT_FOUND, f"training run {run_id} does not exist")
    return Response(loss_picture(row.loss_history), media_type="image/png", headers=_HEADERS)


def _may_see(who: Caller | None, user_id: str) -> bool:
    """Without a caller the link was signed for this very picture, or the machine is the viewer's own."""
    return who is None or who.is_admin or who.user_id == user_id
