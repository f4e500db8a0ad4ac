"""`/simulator`: what was paid and asked for, and the levers for tests and benchmarks. No part of any real provider.

No token is asked for: the simulator listens on this machine alone unless told otherwise, and holds nothing real.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_pipeline.simulator.clock import stamp
from lora_pipeline.simulator.faults import Fault
from lora_pipeline.simulator.ledger import Order
from lora_pipeline.simulator.replicate_api import base_url
from lora_pipeline.simulator.simulator import Simulator
from lora_pipeline.simulator.trainers import FLUX_TRAINER, TRAINER_VERSIONS
from lora_pipeline.simulator.trainings import Quirks, Training


class Seeding(BaseModel):
    """Many open trainings at once, without a request each and without fetching a ZIP."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(gt=0, le=1_000_000)
    destination: str = "bench-{n}-selfie-lora"
    """Model name, with the number in it; the owner is the account. Missing models are made."""
    input_images: str = "https://store.invalid/submissions/{n}/images.zip"
    trigger_word: str = "user{n}"
    start: int = 0
    """The first number."""
    steps: int = 1000
    quirk: dict[str, Any] = Field(default_factory=dict)


class Ending(BaseModel):
    """How an open training ends now."""

    model_config = ConfigDict(extra="forbid")

    outcome: str = Field("succeeded", pattern="^(succeeded|failed|canceled|aborted)$")
    error: str | None = None


class Advance(BaseModel):
    """Life seconds to move on by."""

    seconds: float = Field(ge=0)


class PushedVersions(BaseModel):
    """Versions that come from no training: owner/name to hashes, oldest first; missing models are made."""

    models: dict[str, list[str]]


def control_router(simulator: Simulator) -> APIRouter:
    """Everything under `/simulator`."""
    router = APIRouter()
    for part in (observing_router, levers_router, faults_router, endings_router):
        router.include_router(part(simulator), prefix="/simulator")
    return router


def observing_router(simulator: Simulator) -> APIRouter:
    """Reading what happened: the summary, what was paid, which requests came."""
    router = APIRouter()
    ledger = simulator.ledger

    @router.get("")
    async def summary() -> Response:
        now = ledger.settle()
        return JSONResponse(
            {
                "simulated": True,
                "provider": "replicate",
                "now": stamp(now.shown),
                "life_s": now.life,
                "settings": simulator.settings.shown(),
                "faults_waiting": simulator.faults.waiting(),
                "faults_happened": dict(simulator.happened),
            }
        )

    @router.get("/paid")
    async def paid() -> Response:
        life = ledger.settle().life
        return JSONResponse(paid_json([(one, one.status(life)) for one in ledger.all()]))

    @router.get("/requests")
    async def requests() -> Response:
        return JSONResponse({"total": simulator.requests.total(), "by_operation": dict(simulator.requests)})

    @router.get("/webhooks")
    async def webhooks(limit: int = 1000) -> Response:
        postman = simulator.postman
        return JSONResponse({"waiting": postman.waiting_count(), "deliveries": postman.deliveries(limit)})

    @router.post("/requests/reset")
    async def reset() -> Response:
        simulator.requests.clear()
        return JSONResponse({"total": 0, "by_operation": {}})

    return router


def levers_router(simulator: Simulator) -> APIRouter:
    """Settings, the clock, and things put into the provider without a request each."""
    router = APIRouter()

    @router.post("/reset")
    async def reset() -> Response:
        simulator.reset()
        return JSONResponse({"reset": True})

    @router.post("/settings")
    async def settings(changes: dict[str, Any]) -> Response:
        try:
            found = simulator.change(changes)
        except (ValidationError, ValueError) as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse(found.shown())

    @router.post("/clock/advance")
    async def advance(by: Advance) -> Response:
        now = simulator.clock.advance(by.seconds)
        await simulator.attendant.catch_up()
        simulator.ledger.settle()
        return JSONResponse({"now": stamp(now.shown), "life_s": now.life})

    @router.post("/trainings")
    async def seed(request: Request, seeding: Seeding) -> Response:
        made = seed_trainings(simulator, seeding, base_url(request))
        return JSONResponse({"trainings": made}, status_code=201)

    @router.post("/versions")
    async def versions(pushed: PushedVersions) -> Response:
        simulator.catalog.ensure(pushed.models)
        pairs = [(model, text) for model, hashes in pushed.models.items() for text in hashes]
        simulator.catalog.add_versions(pairs)
        return JSONResponse({"versions": len(pairs)}, status_code=201)

    @router.post("/models/{owner}/{name}/burn")
    async def burn(owner: str, name: str) -> Response:
        simulator.catalog.burn(f"{owner}/{name}")
        return JSONResponse({"burned": f"{owner}/{name}"})

    return router


def faults_router(simulator: Simulator) -> APIRouter:
    """Faults that are to happen."""
    router = APIRouter()

    @router.post("/faults")
    async def add_fault(fault: Fault) -> Response:
        return JSONResponse({"id": simulator.faults.add(fault)}, status_code=201)

    @router.get("/faults")
    async def faults() -> Response:
        return JSONResponse({"waiting": simulator.faults.waiting(), "happened": dict(simulator.happened)})

    @router.delete("/faults")
    async def clear_faults() -> Response:
        simulator.faults.clear()
        return Response(status_code=204)

    return router


def endings_router(simulator: Simulator) -> APIRouter:
    """Ending trainings, and making single ones deviate."""
    router = APIRouter()
    ledger = simulator.ledger

    def known(identity: str) -> Training:
        training = ledger.find(identity)
        if training is None:
            raise HTTPException(404, f"no training {identity!r} was ever created here")
        return training

    @router.post("/trainings/end")
    async def end_all() -> Response:
        ended = ledger.end_all_open()
        await simulator.attendant.catch_up()
        return JSONResponse({"ended": ended})

    @router.post("/trainings/{identity}/end")
    async def end(identity: str, ending: Ending) -> Response:
        known(identity)
        error = ending.error or ("The training failed." if ending.outcome == "failed" else None)
        ended = ledger.end(identity, ending.outcome, error)
        await simulator.attendant.catch_up()
        return JSONResponse({"ended": ended, "status": known(identity).status(simulator.clock.now().life)})

    @router.post("/trainings/{identity}/quirks")
    async def quirks(identity: str, wanted: dict[str, Any]) -> Response:
        known(identity)
        try:
            ledger.set_quirks(identity, Quirks.parse(wanted))
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse(known(identity).quirks.__dict__)

    return router


def seed_trainings(simulator: Simulator, seeding: Seeding, base: str) -> list[dict[str, str]]:
    """Create trainings as orders, all in one transaction; returns id, destination and input_images of each."""
    orders = []
    for n in range(seeding.start, seeding.start + seeding.count):
        inputs = {
            "steps": seeding.steps,
            "lora_rank": 16,
            "trigger_word": seeding.trigger_word.format(n=n),
            "input_images": seeding.input_images.format(n=n),
        }
        destination = f"{simulator.settings.account}/{seeding.destination.format(n=n)}"
        version = TRAINER_VERSIONS[FLUX_TRAINER][-1]
        orders.append(Order(FLUX_TRAINER, version, destination, inputs, base))
    simulator.catalog.ensure(order.destination for order in orders)
    ids = simulator.ledger.create_many(orders, simulator.settings, Quirks.parse(seeding.quirk), fetch=False)
    return [
        {
            "id": identity,
            "destination": order.destination,
            "input_images": str(order.input["input_images"]),
        }
        for identity, order in zip(ids, orders, strict=True)
    ]


def paid_json(trainings: list[tuple[Training, str]]) -> dict[str, Any]:
    """Every created training, and how many were paid for the same ZIP. Signatures of presigned URLs are left out."""
    rows = [
        {
            "id": training.id,
            "created_at": stamp(training.created_shown),
            "status": status,
            "destination": training.destination,
            "trainer": training.trainer,
            "version": training.trainer_version,
            "input_images": urlsplit(str(training.input.get("input_images", ""))).path,
            "steps": training.steps,
            "archive": training.archive,
            "images": training.images,
            "trained_version": f"{training.destination}:{training.version_hash}"
            if status == "succeeded"
            else None,
        }
        for training, status in trainings
    ]
    by_images: dict[str, int] = {}
    for row in rows:
        by_images[str(row["input_images"])] = by_images.get(str(row["input_images"]), 0) + 1
    twice = {path: count for path, count in by_images.items() if count > 1}
    return {"count": len(rows), "paid_twice": twice, "trainings": rows}
