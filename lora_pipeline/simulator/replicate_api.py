"""Replicate's trainings, account, hardware and webhook secret over HTTP; models and files have modules of their own.

Handlers are thin: read the request, ask the ledger or the catalog, render with wire.py. Errors are raised as
`Problem` and sent by the application.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from lora_pipeline.simulator import problems, wire
from lora_pipeline.simulator.ledger import PAGE_LENGTH, Order
from lora_pipeline.simulator.simulator import Simulator
from lora_pipeline.simulator.trainers import INPUTS, InvalidField, invalid_fields
from lora_pipeline.simulator.trainings import Quirks, Training, new_id

EVENTS = ("start", "output", "logs", "completed")
HARDWARE = (
    ("CPU", "cpu"),
    ("Nvidia T4 GPU", "gpu-t4"),
    ("Nvidia L40S GPU", "gpu-l40s"),
    ("Nvidia A100 (80GB) GPU", "gpu-a100-large"),
    ("Nvidia H100 GPU", "gpu-h100"),
)


def base_url(request: Request) -> str:
    """Scheme, host and port by which the client reached us: every URL in an answer starts with it."""
    return str(request.base_url).rstrip("/")


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object; 400 where it is none."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise problems.Problem(400, "The request body is not a valid JSON object", "Bad request")
    return body


def cursor_of(position: int, *, backwards: bool = False) -> str:
    """An opaque cursor for a position in a list."""
    return urlsafe_b64encode(f"{'r=1&' if backwards else ''}p={position}".encode()).decode()


def read_cursor(text: str | None) -> tuple[int | None, int | None]:
    """(before, after) of a cursor, both None for the first page; 400 for one that we did not make."""
    if not text:
        return None, None
    try:
        inner = urlsafe_b64decode(text.encode()).decode()
        position = int(inner.rpartition("p=")[2])
    except (BadBase64, ValueError):
        raise problems.Problem(400, "Invalid cursor", "Bad request") from None
    return (None, position) if inner.startswith("r=1&") else (position, None)


def page_of(
    results: list[dict[str, Any]], path: str, next_cursor: str | None, previous_cursor: str | None
) -> JSONResponse:
    """A page with the addresses of its neighbours."""
    return JSONResponse(
        {
            "next": f"{path}?cursor={next_cursor}" if next_cursor else None,
            "previous": f"{path}?cursor={previous_cursor}" if previous_cursor else None,
            "results": results,
        }
    )


def trainings_router(simulator: Simulator) -> APIRouter:
    """Creating, listing, reading and cancelling trainings."""
    router = APIRouter()

    def shown(training: Training, *, with_logs: bool) -> dict[str, Any]:
        now = simulator.clock.now()
        return wire.training_json(training, now, simulator.clock, simulator.settings, with_logs=with_logs)

    def known(identity: str) -> Training:
        now = simulator.ledger.settle()
        training = simulator.ledger.find(identity)
        if training is None or now.life >= training.vanishes_life:
            raise problems.not_found()
        return training

    @router.post("/v1/models/{owner}/{name}/versions/{version}/trainings")
    async def create(request: Request, owner: str, name: str, version: str) -> Response:
        order = checked_order(
            simulator, f"{owner}/{name}", version, await json_body(request), base_url(request)
        )
        fault = simulator.faults.take("trainings.create", json.dumps(order.input), quirks=True)
        quirks = Quirks.parse(fault.quirk) if fault else Quirks()
        training = simulator.ledger.create(order, simulator.settings, quirks)
        return JSONResponse(wire.created_json(training), status_code=201)

    @router.get("/v1/trainings")
    async def listing(request: Request, cursor: str | None = None) -> Response:
        before, after = read_cursor(cursor)
        now = simulator.ledger.settle()
        found = simulator.ledger.page(before, after, now.shown - simulator.settings.list_lag_s)
        more = len(found) > PAGE_LENGTH
        page = (found[1:] if after is not None else found[:PAGE_LENGTH]) if more else found
        has_older, has_newer = (True, more) if after is not None else (more, before is not None)
        return page_of(
            [shown(training, with_logs=False) for training in page if now.life < training.vanishes_life],
            f"{base_url(request)}/v1/trainings",
            cursor_of(page[-1].seq) if page and has_older else None,
            cursor_of(page[0].seq, backwards=True) if page and has_newer else None,
        )

    @router.get("/v1/trainings/{identity}")
    async def get(identity: str) -> Response:
        return JSONResponse(shown(known(identity), with_logs=True))

    @router.post("/v1/trainings/{identity}/cancel")
    @router.post("/v1/predictions/{identity}/cancel")
    async def cancel(identity: str) -> Response:
        training = known(identity)
        if training.quirks.cancel == "refused":
            raise problems.Problem(500, "Failed to cancel the training", "Internal Server Error")
        if training.quirks.cancel != "ignored":
            simulator.ledger.end(identity, "canceled")
        return JSONResponse(shown(known(identity), with_logs=True))

    @router.get("/v1/predictions/{identity}")
    async def prediction(identity: str) -> Response:
        made = simulator.predictions.get(identity)
        return JSONResponse(made or wire.prediction_json(shown(known(identity), with_logs=True)))

    return router


def predictions_router(simulator: Simulator) -> APIRouter:
    """Making a picture with a version, as far as it shows which spellings of a version are taken: none is made."""
    router = APIRouter()

    @router.post("/v1/predictions")
    async def create(request: Request) -> Response:
        body = await json_body(request)
        model = predicted_model(simulator, str(body.get("version", "")))
        if not isinstance(body.get("input"), dict):
            raise problems.invalid_input([InvalidField("required", "(root)", "input is required")])
        made = wire.picture_json(new_id(), model, body, base_url(request), simulator.clock.now())
        simulator.predictions[made["id"]] = made | {"status": "succeeded", "output": []}
        return JSONResponse(made, status_code=201)

    return router


def predicted_model(simulator: Simulator, version: str) -> str:
    """The model that a version names: a bare hash or `owner/name:hash`. `model:hash` is refused, as are trainers."""
    simulator.ledger.settle()
    model, _, text = version.rpartition(":")
    if model and "/" not in model:
        raise problems.invalid_version(simulator.settings.model_hash_status)
    found = simulator.catalog.model_of(text)
    if found is None or (model and model != found):
        raise problems.invalid_version()
    return found


def checked_order(simulator: Simulator, trainer: str, version: str, body: dict[str, Any], base: str) -> Order:
    """The order that a creation request amounts to, or the provider's refusal of it."""
    settings = simulator.settings
    if ":" in version:
        raise problems.invalid_version(settings.model_hash_status)
    if trainer not in INPUTS or simulator.catalog.version(trainer, version) is None:
        raise problems.invalid_version()
    faults = request_faults(body)
    if not faults:
        faults = invalid_fields(trainer, body["input"], refuse_unknown=settings.refuse_unknown_inputs)
    if faults:
        raise problems.invalid_input(faults)
    owner, _, name = str(body["destination"]).partition("/")
    if owner != settings.account or simulator.catalog.find(owner, name) is None:
        raise problems.missing_destination()
    if settings.out_of_credit:
        raise problems.insufficient_credit()
    return Order(trainer, version, f"{owner}/{name}", body["input"], base, *webhook_of(body))


def request_faults(body: dict[str, Any]) -> list[InvalidField]:
    """What is wrong with the request around the trainer's input."""
    found = [
        InvalidField("required", "(root)", f"{name} is required")
        for name in ("destination", "input")
        if name not in body
    ]
    if "input" in body and not isinstance(body["input"], dict):
        found.append(InvalidField("invalid_type", "input", "Invalid type. Expected: object"))
    if "destination" in body and not isinstance(body["destination"], str):
        found.append(InvalidField("invalid_type", "destination", "Invalid type. Expected: string"))
    unknown = [event for event in body.get("webhook_events_filter") or [] if event not in EVENTS]
    if unknown:
        text = f"webhook_events_filter must be one of the following: {', '.join(EVENTS)}"
        found.append(InvalidField("enum", "webhook_events_filter", text))
    webhook = body.get("webhook")
    if webhook is not None and not str(webhook).startswith(("http://", "https://")):
        found.append(InvalidField("format", "webhook", "Does not match format 'uri'"))
    return found


def webhook_of(body: dict[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Where events go and which: by default those with output and the last one."""
    if body.get("webhook"):
        return str(body["webhook"]), tuple(body.get("webhook_events_filter") or ("output", "completed"))
    if body.get("webhook_completed"):
        return str(body["webhook_completed"]), ("completed",)
    return None, ()


def account_router(simulator: Simulator) -> APIRouter:
    """The account, the hardware on offer, and the secret that webhooks are signed with."""
    router = APIRouter()

    @router.get("/v1/account")
    async def account() -> Response:
        settings = simulator.settings
        return JSONResponse(
            {
                "type": "organization",
                "username": settings.account,
                "name": settings.account_name,
                "github_url": f"https://github.com/{settings.account}",
            }
        )

    @router.get("/v1/hardware")
    async def hardware() -> Response:
        return JSONResponse([{"name": name, "sku": sku} for name, sku in HARDWARE])

    @router.get("/v1/webhooks/default/secret")
    async def secret() -> Response:
        return JSONResponse({"key": simulator.webhook_secret})

    return router
