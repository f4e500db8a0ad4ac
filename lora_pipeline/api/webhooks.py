"""`/webhooks`: where providers say that something happened to a training.

Answered at once: a delivery is verified and stored, and the provider is asked about it after the answer.
"""

from __future__ import annotations

import hmac
import logging
import threading
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from lora_pipeline.api.limits import AtMost
from lora_pipeline.api.problems import Problem
from lora_pipeline.connections import Connections
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.settings import PROVIDERS, REPLICATE, RUNPOD, ProviderName
from lora_pipeline.trainings.hints import handle_hints
from lora_pipeline.trainings.webhooks import (
    MAX_BODY_BYTES,
    DeliveryUnreadable,
    SignatureRefused,
    runpod_delivery,
    store_delivery,
    verified_delivery,
)

log = logging.getLogger(__name__)

# What is left over is the next status tick's: a server must not fall behind on one provider's backlog.
_HINTS_AT_ONCE = 50
DELIVERIES_AT_ONCE = 16
"""A body has to be whole before it can be seen to be forged: this many of them fit into memory. Who is refused is sent
again or polled."""


def webhooks_router(connections: Connections) -> APIRouter:
    router = APIRouter(tags=["webhooks"])
    at_once = AtMost(DELIVERIES_AT_ONCE)
    workers = {name: HintWorker(connections, name) for name in PROVIDERS}

    @router.post("/webhooks/replicate")
    async def replicate_webhook(request: Request) -> Response:
        """A training's event, signed by Replicate. 401 where it is not, 200 where it is kept or was already."""
        with at_once.place():
            body = await _body(request)
            new = await run_in_threadpool(_receive, connections, dict(request.headers), body)
        return JSONResponse(
            {"received": True, "new": new}, background=BackgroundTask(workers[REPLICATE].work)
        )

    @router.post("/webhooks/runpod/{secret}")
    async def runpod_webhook(secret: str, request: Request) -> Response:
        """A job's event from RunPod, which signs nothing: the path proves it. 404 where it does not."""
        expected = connections.settings.runpod_webhook_secret
        if expected is None or not hmac.compare_digest(secret.encode(), expected.encode()):
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such address")
        body = await _body(request)
        new = await run_in_threadpool(_receive_from_runpod, connections, body)
        return JSONResponse({"received": True, "new": new}, background=BackgroundTask(workers[RUNPOD].work))

    return router


class HintWorker:
    """Handles a provider's waiting hints in this process: one round at a time, however many deliveries arrive."""

    def __init__(self, connections: Connections, provider: ProviderName) -> None:
        self._connections = connections
        self._provider = provider
        self._busy = threading.Lock()
        self._wanted = threading.Event()

    def work(self) -> None:
        """Handle what waits, and what arrives meanwhile. Returns at once where another thread is at it.

        A hint that slips in as the last round ends, and every trouble, is left to the next status tick.
        """
        self._wanted.set()
        if not self._busy.acquire(blocking=False):
            return
        try:
            while self._wanted.is_set():
                self._wanted.clear()
                self._round()
        finally:
            self._busy.release()

    def _round(self) -> None:
        connections = self._connections
        try:
            provider = connections.provider_named(self._provider)
            report = handle_hints(connections.database, provider, connections.now, _HINTS_AT_ONCE)
        except Exception:  # the answer has left; the tick will meet the same trouble and show it
            log.exception("hints could not be handled now; the next status tick tries again")
            return
        for change in report.moved:
            log.info("run %s: %s → %s, told by a webhook", change.run_id, change.before, change.after)
        for error in report.errors:
            log.warning("%s", error)


async def _body(request: Request) -> bytes:
    """The raw body, which the signature is over. 413 above the cap, however much was announced."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the delivery is larger than {MAX_BODY_BYTES} bytes; its training is polled instead",
            )
    return bytes(body)


def _receive_from_runpod(connections: Connections, body: bytes) -> bool:
    try:
        delivery = runpod_delivery(body)
    except DeliveryUnreadable as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from None
    return store_delivery(connections.database, RUNPOD, delivery, connections.now())


def _receive(connections: Connections, headers: dict[str, str], body: bytes) -> bool:
    try:
        delivery = verified_delivery(connections.replicate_webhook_secret, headers, body)
    except SignatureRefused as error:
        raise Problem(HTTPStatus.UNAUTHORIZED, str(error)) from None
    except DeliveryUnreadable as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from None
    except ProviderError as error:
        # Replicate tries the last event of a training again for about a minute.
        log.warning("a delivery could not be verified: %s", error)
        detail = "the signing secret cannot be read now; send the delivery again"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail) from None
    return store_delivery(connections.database, REPLICATE, delivery, connections.now())
