"""The simulator as a web application, and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lora_pipeline.quiet_logs import keep_secrets_out_of_logs
from lora_pipeline.simulator import problems
from lora_pipeline.simulator.control_api import control_router
from lora_pipeline.simulator.front import Front, Transports
from lora_pipeline.simulator.replicate_api import account_router, predictions_router, trainings_router
from lora_pipeline.simulator.replicate_files import delivery_router, files_router
from lora_pipeline.simulator.replicate_models import models_router, versions_router
from lora_pipeline.simulator.runpod_api import jobs_router
from lora_pipeline.simulator.runpod_control import runpod_control_router
from lora_pipeline.simulator.runpod_errors import Refusal
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.simulator import Simulator

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)


def create_app(settings: SimulatorSettings) -> FastAPI:
    """The application of one simulator; opens its state. Dropping connections works under `make_server` alone."""
    keep_secrets_out_of_logs()  # it asks for datasets and tells webhooks, whose addresses are secrets
    simulator = Simulator(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        attending = asyncio.create_task(simulator.attendant.run())
        yield
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)
        simulator.state.close()

    app = FastAPI(title="Replicate and RunPod, simulated", lifespan=lifespan, openapi_url=None)
    app.state.simulator = simulator
    for router in (
        trainings_router(simulator),
        predictions_router(simulator),
        account_router(simulator),
        models_router(simulator),
        versions_router(simulator),
        files_router(simulator),
        delivery_router(simulator),
        jobs_router(simulator),
        control_router(simulator),
        runpod_control_router(simulator),
    ):
        app.include_router(router)
    app.add_middleware(Front, simulator=simulator)

    @app.exception_handler(problems.Problem)
    async def known_problem(_: Request, problem: problems.Problem) -> Response:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def http_problem(request: Request, found: HTTPException) -> Response:
        if request.url.path.startswith("/v2/"):
            return Refusal(found.status_code, str(found.detail)).response()
        body = {"detail": str(found.detail), "status": found.status_code, "title": str(found.detail)}
        return problems.problem_response(found.status_code, body)

    @app.exception_handler(RequestValidationError)
    async def bad_request(_: Request, found: RequestValidationError) -> Response:
        return problems.problem_response(
            422, {"detail": str(found), "status": 422, "title": "Invalid request"}
        )

    return app


def make_server(settings: SimulatorSettings, host: str, port: int) -> uvicorn.Server:
    """A server that has not started yet; port 0 takes a free one."""
    import uvicorn

    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=registering_protocol(app.state.simulator.transports),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def registering_protocol(transports: Transports) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, with each open connection in `transports`, so that a fault can close it."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

    class RegisteringProtocol(base):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            transports[tuple(transport.get_extra_info("peername")[:2])] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(tuple(self.transport.get_extra_info("peername")[:2]), None)
            super().connection_lost(exc)

    return RegisteringProtocol


def serve(settings: SimulatorSettings, host: str = "127.0.0.1", port: int = 8010) -> None:
    """Run a simulator until it is told to stop (Ctrl-C or SIGTERM)."""
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has shut down
        make_server(settings, host, port).run()
