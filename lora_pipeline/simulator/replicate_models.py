"""Replicate's models and versions over HTTP."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from lora_pipeline.simulator import problems, wire
from lora_pipeline.simulator.catalog import PAGE_LENGTH, Model, NameTaken, Version
from lora_pipeline.simulator.replicate_api import (
    HARDWARE,
    base_url,
    cursor_of,
    json_body,
    page_of,
    read_cursor,
)
from lora_pipeline.simulator.simulator import Simulator
from lora_pipeline.simulator.trainers import InvalidField

NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
DETAILS = ("description", "github_url", "paper_url", "license_url", "cover_image_url")


def known_model(simulator: Simulator, owner: str, name: str) -> Model:
    """A model that exists now, or 404."""
    simulator.ledger.settle()
    model = simulator.catalog.find(owner, name)
    if model is None:
        raise problems.not_found()
    return model


def models_router(simulator: Simulator) -> APIRouter:
    """Creating, reading and deleting models."""
    router = APIRouter()
    catalog = simulator.catalog

    def shown(model: Model, request: Request) -> dict[str, Any]:
        latest = next(iter(catalog.versions(model.full_name, limit=1)), None)
        return wire.model_json(model, latest, base_url(request))

    @router.post("/v1/models")
    async def create(request: Request) -> Response:
        body = await json_body(request)
        check_model(body, simulator.settings.account)
        details = {key: body[key] for key in DETAILS if body.get(key) is not None}
        try:
            model = catalog.create(body["owner"], body["name"], body["visibility"], body["hardware"], details)
        except NameTaken:
            raise problems.conflict("A model with that name and owner already exists") from None
        return JSONResponse(shown(model, request), status_code=201)

    @router.get("/v1/models/{owner}/{name}")
    async def get(request: Request, owner: str, name: str) -> Response:
        return JSONResponse(shown(known_model(simulator, owner, name), request))

    @router.delete("/v1/models/{owner}/{name}")
    async def delete(owner: str, name: str) -> Response:
        model = known_model(simulator, owner, name)
        check_deletable(simulator, model)
        if catalog.versions(model.full_name, limit=1):
            raise refused(simulator, "The model has versions: delete them first")
        catalog.delete(model, burn=simulator.settings.burn_deleted_names)
        return Response(status_code=204)

    return router


def versions_router(simulator: Simulator) -> APIRouter:
    """Listing, reading and deleting versions."""
    router = APIRouter(prefix="/v1/models/{owner}/{name}/versions")
    catalog = simulator.catalog

    def known(owner: str, name: str, text: str) -> tuple[Model, Version]:
        model = known_model(simulator, owner, name)
        found = catalog.version(model.full_name, text)
        if found is None:
            raise problems.not_found()
        return model, found

    @router.get("")
    async def listing(request: Request, owner: str, name: str, cursor: str | None = None) -> Response:
        model = known_model(simulator, owner, name)
        before, _ = read_cursor(cursor)
        found = catalog.versions(model.full_name, before)
        page = found[:PAGE_LENGTH]
        older = cursor_of(page[-1].seq) if len(found) > PAGE_LENGTH else None
        path = f"{base_url(request)}/v1/models/{model.full_name}/versions"
        return page_of([wire.version_json(version) for version in page], path, older, None)

    @router.get("/{text}")
    async def get(owner: str, name: str, text: str) -> Response:
        return JSONResponse(wire.version_json(known(owner, name, text)[1]))

    @router.delete("/{text}")
    async def delete(owner: str, name: str, text: str) -> Response:
        model, found = known(owner, name, text)
        check_deletable(simulator, model)
        catalog.delete_version(found, simulator.settings.deletion_s)
        return Response(status_code=202)

    return router


def check_model(body: dict[str, Any], account: str) -> None:
    """Refuse a model that the provider would not create. The words are ours: no recorded answer is known."""
    found = [
        InvalidField("required", "(root)", f"{field} is required")
        for field in ("owner", "name", "visibility", "hardware")
        if not body.get(field)
    ]
    if not found and not NAME.fullmatch(str(body["name"])):
        text = "Must consist of lower case letters, digits, dashes, underscores and dots"
        found.append(InvalidField("pattern", "name", text))
    if not found and body["visibility"] not in ("public", "private"):
        found.append(InvalidField("enum", "visibility", "visibility must be one of: public, private"))
    if not found and body["hardware"] not in {sku for _, sku in HARDWARE}:
        found.append(InvalidField("enum", "hardware", f"hardware {body['hardware']!r} is not on offer"))
    if found:
        raise problems.invalid_input(found)
    if body["owner"] != account:
        raise problems.Problem(
            403, "You do not have permission to create a model for this owner", "Forbidden"
        )


def check_deletable(simulator: Simulator, model: Model) -> None:
    """Only what the account owns and keeps private can be deleted."""
    if model.owner != simulator.settings.account:
        raise refused(simulator, "You can only delete what you own")
    if model.visibility != "private":
        raise refused(simulator, "You can only delete private models and their versions")


def refused(simulator: Simulator, detail: str) -> problems.Problem:
    """The refusal of a deletion; its status is a setting, because it is only inferred."""
    return problems.Problem(simulator.settings.refused_deletion_status, detail, "Deletion refused")
