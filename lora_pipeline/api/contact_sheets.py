"""Contact sheets, from the object store: pictures of people are served here and linked, never copied elsewhere."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from lora_pipeline.api.problems import Problem
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ImageSet
from lora_pipeline.objects import ObjectNotFound

# Never in a shared cache; for a while in the browser's, so that a page with many of them reloads quickly.
_HEADERS = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}


def contact_sheets_router(connections: Connections) -> APIRouter:
    router = APIRouter(tags=["contact sheets"])

    @router.get("/contact-sheets/{image_set_id}.jpg", response_class=StreamingResponse)
    def contact_sheet(image_set_id: int) -> StreamingResponse:
        """The small pictures of one image set, with each one's verdict."""
        with connections.database.read() as session:
            image_set = session.get(ImageSet, image_set_id)
            key = image_set.contact_sheet_key if image_set else None
        if key is None:
            known = "has no contact sheet yet" if image_set else "does not exist"
            raise Problem(HTTPStatus.NOT_FOUND, f"image set {image_set_id} {known}")
        try:
            content = connections.store.stream(key)
        except ObjectNotFound:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"the contact sheet of image set {image_set_id} has been deleted"
            ) from None
        return StreamingResponse(content, media_type="image/jpeg", headers=_HEADERS)

    return router
