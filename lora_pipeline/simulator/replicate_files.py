"""Replicate's files over HTTP, and the delivery of trained weights."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from lora_pipeline.simulator import problems
from lora_pipeline.simulator.replicate_api import base_url, cursor_of, page_of, read_cursor
from lora_pipeline.simulator.shelf import PAGE_LENGTH
from lora_pipeline.simulator.simulator import Simulator
from lora_pipeline.simulator.trainers import InvalidField
from lora_pipeline.simulator.trainings import Training
from lora_pipeline.simulator.weights import EXPIRED_PAGE, archive_bytes

MULTIPART_OVERHEAD = 64 * 1024
CACHE_BYTES = 64 * 1024**2


def files_router(simulator: Simulator) -> APIRouter:
    """Uploading, listing, reading and deleting files."""
    router = APIRouter()
    shelf = simulator.shelf

    @router.post("/v1/files")
    async def create(request: Request) -> Response:
        cap = simulator.settings.file_cap_bytes
        if int(request.headers.get("content-length") or 0) > cap + MULTIPART_OVERHEAD:
            async for _ in request.stream():
                pass  # A client that is still sending would otherwise see a broken pipe and not the 413.
            raise too_large(cap)
        async with request.form() as form:
            content = form.get("content")
            if not isinstance(content, UploadFile):
                raise problems.invalid_input([InvalidField("required", "(root)", "content is required")])
            if (content.size or 0) > cap:
                raise too_large(cap)
            metadata = metadata_of(form.get("metadata"))
            name = str(form.get("filename") or content.filename or "file")
            kind = str(form.get("type") or content.content_type or "application/octet-stream")
            stored = await asyncio.to_thread(shelf.keep, content.file)
        found = shelf.record(stored, name, kind, metadata)
        body = found.json(base_url(request), simulator.settings.file_lifetime_s)
        return JSONResponse(body, status_code=201)

    @router.get("/v1/files")
    async def listing(request: Request, cursor: str | None = None) -> Response:
        before, _ = read_cursor(cursor)
        lifetime = simulator.settings.file_lifetime_s
        found = shelf.page(before, lifetime)
        page = found[:PAGE_LENGTH]
        base = base_url(request)
        older = cursor_of(page[-1].seq) if len(found) > PAGE_LENGTH else None
        return page_of([one.json(base, lifetime) for one in page], f"{base}/v1/files", older, None)

    @router.get("/v1/files/{identity}")
    async def get(request: Request, identity: str) -> Response:
        found = shelf.find(identity, simulator.settings.file_lifetime_s)
        if found is None:
            raise problems.not_found("File not found")
        return JSONResponse(found.json(base_url(request), simulator.settings.file_lifetime_s))

    @router.delete("/v1/files/{identity}")
    async def delete(identity: str) -> Response:
        if not shelf.delete(identity):
            raise problems.not_found("File not found")
        return Response(status_code=204)

    return router


def too_large(cap: int) -> problems.Problem:
    """413, with the words of the provider's description."""
    return problems.Problem(413, f"Files must be less than {cap // 1_000_000}MB in size", "Content Too Large")


def metadata_of(given: object) -> dict[str, Any]:
    """The optional metadata part, which must be a JSON object."""
    try:
        found = json.loads(str(given)) if given else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise problems.invalid_input(
            [InvalidField("invalid_type", "metadata", "metadata must be a JSON object")]
        )
    return found


def delivery_router(simulator: Simulator) -> APIRouter:
    """`/xezq/<opaque>/trained_model.tar`: no token is asked for, as at the provider's delivery host."""
    router = APIRouter()
    made: OrderedDict[str, bytes] = OrderedDict()

    @router.api_route("/xezq/{key}/trained_model.tar", methods=["GET", "HEAD"])
    async def weights(key: str) -> Response:
        now = simulator.ledger.settle()
        training = simulator.ledger.find_by_weights(key)
        if training is None or is_gone(training):
            raise problems.not_found()
        age = now.shown - simulator.clock.shown_of(training.ends_life)
        lifetime = simulator.settings.weights_lifetime_s
        if training.quirks.weights == "missing" or (lifetime is not None and age > lifetime):
            raise problems.not_found()
        if training.quirks.weights == "expired":
            return Response(EXPIRED_PAGE, status_code=403, media_type="application/xml")
        cached = f"{key} {training.quirks.weights} {simulator.settings.lora_blocks} {simulator.settings.lora_width}"
        body = made.get(cached)
        if body is None:
            body = await asyncio.to_thread(archive_bytes, training, simulator.settings)
            made[cached] = body
        while len(made) > 1 and sum(map(len, made.values())) > CACHE_BYTES:
            made.popitem(last=False)
        media = "text/html" if training.quirks.weights == "html" else "application/x-tar"
        return Response(body, media_type=media)

    def is_gone(training: Training) -> bool:
        open_or_bad = not training.settled or training.outcome != "succeeded"
        return open_or_bad or simulator.catalog.version_is_gone(training.id)

    return router
