"""Uploading training images, and looking at what was uploaded."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from starlette.datastructures import FormData, UploadFile

from lora_pipeline.access.callers import reachable_model, user_of
from lora_pipeline.api.answers import FindingAnswer, UploadAnswer, UploadedImage
from lora_pipeline.api.authentication import KeyOrLink, KnownCaller
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.database.tables import Image
from lora_pipeline.image_sets.intake import TakenFile, take_in
from lora_pipeline.image_sets.sources import ImageSource, source_from_file
from lora_pipeline.image_sets.uploads import UploadedFile, is_content_name, keep_uploads
from lora_pipeline.objects import ObjectNotFound

router = APIRouter(tags=["training"])

_PATH = "/api/uploads/"
_MOST_FILES = 100
_NO_FILES = "got no file; expected a multipart form with the images as its files"
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "The images; any field name will do.",
                        },
                        "modelId": {"type": "string", "description": "Add them to this model's set at once."},
                        "userId": {
                            "type": "string",
                            "description": "For administrators: whose images they are.",
                        },
                    },
                    "required": ["images"],
                }
            }
        },
    }
}


async def form_of(request: Request, _: KnownCaller) -> FormData:
    """The form, read only after the key was seen to be good."""
    if "multipart/form-data" not in request.headers.get("content-type", ""):
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _NO_FILES)
    return await request.form(max_files=_MOST_FILES, max_fields=20)


@router.post("/api/training/upload", openapi_extra=_FORM)
def upload(
    caller: KnownCaller, form: Annotated[FormData, Depends(form_of)], services: Shared
) -> UploadAnswer:
    """Keep images for a training; each is examined now, and its verdict told."""
    files = [file for _, file in form.multi_items() if isinstance(file, UploadFile) and file.filename]
    if not files:
        raise Problem(HTTPStatus.BAD_REQUEST, _NO_FILES)
    with services.uploads.place():
        # Read when their turn comes: all of them at once may be as large as the memory.
        sources = [source_from_file(str(file.filename), file.file) for file in files]
        model_id, user_id = form.get("modelId"), form.get("userId")
        if isinstance(model_id, str) and model_id:
            with services.connections.database.read() as session:
                model_key = reachable_model(session, caller, model_id).model_key
            return _answer(services, _taken_in(services, model_key, sources))
        try:
            user = user_of(caller, user_id if isinstance(user_id, str) and user_id else None)
        except ValueError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        connections = services.connections
        kept = keep_uploads(
            connections.database,
            connections.store,
            user,
            sources,
            profile=connections.image_profile,
            now=connections.now(),
        )
        return _answer(services, kept)


@router.get(
    "/api/uploads/{sha256}/{name}",
    response_class=StreamingResponse,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
def uploaded(sha256: str, name: str, who: KeyOrLink, services: Shared) -> StreamingResponse:  # noqa: ARG001
    """One upload of the caller's, upright and without metadata."""
    connections = services.connections
    question = select(Image.normalised_key).where(Image.sha256 == sha256, Image.normalised_key.is_not(None))
    if who is not None and not who.is_admin:
        question = question.where(Image.user_id == who.user_id)
    with connections.database.read() as session:
        key = session.scalars(question.limit(1)).one_or_none() if is_content_name(sha256) else None
    try:
        if key is not None:
            headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
            return StreamingResponse(connections.store.stream(key), media_type="image/jpeg", headers=headers)
    except ObjectNotFound:
        pass
    raise Problem(HTTPStatus.NOT_FOUND, "you have no such upload, or it is no image")


def preview_links(services: Services, sha256s: Iterable[str]) -> dict[str, str]:
    """SHA-256 → the address of an upload's picture, open for a while to whoever has it: for an `<img>`.

    What is no image has none.
    """
    question = select(Image.sha256).where(Image.sha256.in_(set(sha256s)), Image.normalised_key.is_not(None))
    with services.connections.database.read() as session:
        found = set(session.scalars(question))
    return {sha256: services.signed(f"{_PATH}{sha256}/preview.jpg").url for sha256 in found}


def own_upload(url: str, public_url: str) -> tuple[str, str] | None:
    """(SHA-256, name) of an address that an upload was answered with; None for any other address.

    A path alone is ours too. Addresses of our paths on other hosts are not: they are fetched, like any other.
    """
    parts = urlsplit(url)
    home = urlsplit(public_url)
    if parts.netloc and (parts.scheme, parts.netloc) != (home.scheme, home.netloc):
        return None
    sha256, _, name = parts.path.removeprefix(_PATH).partition("/")
    if not parts.path.startswith(_PATH) or not is_content_name(sha256) or "/" in name:
        return None
    return sha256, unquote(name) or sha256[:12]


def uploaded_image(services: Services, file: UploadedFile | TakenFile) -> UploadedImage:
    """One file as it is answered."""
    verdict = "included" if file.state == "known" else file.state
    return UploadedImage(
        name=file.name,
        url=_url(services, file.sha256, file.name) if file.sha256 else None,
        sha256=file.sha256,
        verdict=verdict,
        message=file.message,
        findings=[FindingAnswer.model_validate(finding.to_dict()) for finding in file.findings],
    )


def _taken_in(services: Services, model_key: str, sources: list[ImageSource]) -> list[TakenFile]:
    connections = services.connections
    report = take_in(
        connections.database,
        connections.store,
        model_key,
        sources,
        profile=connections.image_profile,
        clock=connections.now,
    )
    return list(report.files)


def _answer(services: Services, files: list[UploadedFile] | list[TakenFile]) -> UploadAnswer:
    images = [uploaded_image(services, file) for file in files]
    previews = preview_links(services, [image.sha256 for image in images if image.sha256])
    for image in images:
        image.preview_url = previews.get(image.sha256 or "")
    urls = [image.url for image in images if image.url and image.verdict == "included"]
    return UploadAnswer(image_urls=list(dict.fromkeys(urls)), images=images)


def _url(services: Services, sha256: str, name: str) -> str:
    public = services.connections.settings.resolved_public_url
    return f"{public}{_PATH}{sha256}/{quote(name.replace('/', ' '), safe='')}"
