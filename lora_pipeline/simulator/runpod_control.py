"""`/simulator/runpod`: what was paid at the simulated RunPod, and the levers on single jobs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from lora_pipeline.simulator.clock import stamp
from lora_pipeline.simulator.runpod_jobs import OUTCOMES, Job, JobQuirks, exception_text
from lora_pipeline.simulator.simulator import Simulator


class JobEnding(BaseModel):
    """How an open job ends now."""

    model_config = ConfigDict(extra="forbid")

    outcome: str = Field("COMPLETED", pattern=f"^({'|'.join(OUTCOMES)})$")
    error: str = "The training failed."
    """The message of the exception where the outcome is FAILED."""


def runpod_control_router(simulator: Simulator) -> APIRouter:
    """Everything under `/simulator/runpod`."""
    router = APIRouter(prefix="/simulator/runpod")
    book = simulator.jobs

    def known(identity: str) -> Job:
        job = book.find(identity)
        if job is None:
            raise HTTPException(404, f"no job {identity!r} was ever created here")
        return job

    @router.get("/paid")
    async def paid() -> Response:
        return JSONResponse(paid_json(book.all(), simulator.clock.now().life))

    @router.post("/jobs/end")
    async def end_all() -> Response:
        ended = sum(book.end(job, "COMPLETED") for job in book.all())
        await simulator.attendant.catch_up()
        return JSONResponse({"ended": ended})

    @router.post("/jobs/{identity}/end")
    async def end(identity: str, ending: JobEnding) -> Response:
        error = exception_text("RuntimeError", ending.error) if ending.outcome == "FAILED" else None
        ended = book.end(known(identity), ending.outcome, error)
        await simulator.attendant.catch_up()
        return JSONResponse({"ended": ended, "status": known(identity).status(simulator.clock.now().life)})

    @router.post("/jobs/{identity}/quirks")
    async def quirks(identity: str, wanted: dict[str, Any]) -> Response:
        try:
            book.set_quirks(known(identity), JobQuirks.parse(wanted), simulator.settings)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse(known(identity).quirks.__dict__)

    return router


def paid_json(jobs: list[Job], life: float) -> dict[str, Any]:
    """Every attempt is paid for. `by_token` and `paid_twice` count them by the caller's own id of the job."""
    by_token: Counter[str] = Counter()
    for job in jobs:
        by_token[job.token or ""] += job.attempt
    rows = [
        {
            "id": job.id,
            "token": job.token,
            "endpoint": job.endpoint,
            "created_at": stamp(job.created_shown),
            "status": job.status(life),
            "attempts": job.attempt,
            "execution_timeout_s": job.timeout_s,
            "ttl_s": job.ttl_s,
            "model_name": job.input.get("model_name"),
            "s3_key": job.input.get("s3_key"),
            "steps": job.steps,
            "archive": job.archive,
            "images": job.images,
            "upload": job.upload,
        }
        for job in jobs
    ]
    twice = {token: count for token, count in by_token.items() if count > 1}
    return {"count": by_token.total(), "by_token": dict(by_token), "paid_twice": twice, "jobs": rows}
