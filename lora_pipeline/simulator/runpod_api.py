"""RunPod serverless over HTTP: `/v2/{endpoint}/…`. Handlers are thin: read the request, ask the book, render.

Errors are raised as `Refusal` and sent by the application; the key and the rate limits are the front's
(`runpod_gate`).
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from lora_pipeline.simulator import runpod_errors, runpod_wire
from lora_pipeline.simulator.runpod_book import JobOrder
from lora_pipeline.simulator.runpod_jobs import Job, JobQuirks
from lora_pipeline.simulator.simulator import Simulator

WEEK_MS = 7 * 86_400_000
POLICY_MS = {"executionTimeout": (5000, WEEK_MS), "ttl": (10_000, WEEK_MS)}
"""What the documentation allows."""


def jobs_router(simulator: Simulator) -> APIRouter:
    """Creating, reading, cancelling and retrying jobs of any endpoint that exists."""
    router = APIRouter(prefix="/v2/{endpoint}")
    book = simulator.jobs

    def shown(render: Any, job: Job) -> Response:
        return JSONResponse(render(job, simulator.clock.now().life, simulator.settings))

    def known(endpoint: str, identity: str) -> Job:
        check_endpoint(simulator, endpoint)
        job = book.find(identity)
        life, kept = simulator.clock.now().life, simulator.settings.runpod_retention_s
        if job is None or job.endpoint != endpoint or job.is_forgotten(life, kept):
            raise runpod_errors.not_found("job")
        return job

    @router.post("/run")
    async def run(request: Request, endpoint: str) -> Response:
        check_endpoint(simulator, endpoint)
        order = checked_order(simulator, endpoint, await request.body())
        fault = simulator.faults.take("runpod.run", json.dumps(order.input), quirks=True)
        quirks = JobQuirks.parse(fault.quirk) if fault else JobQuirks()
        return shown(runpod_wire.brief_json, book.create(order, simulator.settings, quirks))

    @router.get("/status/{identity}")
    @router.post("/status/{identity}")
    async def status(endpoint: str, identity: str) -> Response:
        return shown(runpod_wire.status_json, known(endpoint, identity))

    @router.post("/cancel/{identity}")
    async def cancel(endpoint: str, identity: str) -> Response:
        job = known(endpoint, identity)
        if job.quirks.cancel == "refused":
            raise runpod_errors.of_status(500, None)
        if job.quirks.cancel != "ignored":
            # Inferred: one that has ended is answered with the state it has.
            book.end(job, "CANCELLED")
        return shown(runpod_wire.brief_json, book.known(identity))

    @router.post("/retry/{identity}")
    async def retry(endpoint: str, identity: str) -> Response:
        job = known(endpoint, identity)
        if not book.may_retry(job):
            refused = runpod_errors.bad_request("only jobs that failed or timed out can be retried")
            refused.status = simulator.settings.runpod_refused_retry_status
            raise refused
        return shown(runpod_wire.brief_json, book.retry(job, simulator.settings))

    @router.get("/health")
    async def health(endpoint: str) -> Response:
        check_endpoint(simulator, endpoint)
        counts = book.counts(endpoint, simulator.settings.runpod_retention_s)
        return JSONResponse(runpod_wire.health_json(counts))

    return router


def check_endpoint(simulator: Simulator, endpoint: str) -> None:
    """404 for an endpoint that does not exist."""
    only = simulator.settings.runpod_endpoint
    if only is not None and endpoint != only:
        raise runpod_errors.not_found("endpoint")


def checked_order(simulator: Simulator, endpoint: str, content: bytes) -> JobOrder:
    """The order that a request amounts to, or the provider's refusal of it."""
    settings = simulator.settings
    try:
        body = json.loads(content)
    except ValueError:
        raise runpod_errors.bad_request("the request body is not valid JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("input"), dict):
        raise runpod_errors.bad_request("input is required and must be an object")
    webhook = body.get("webhook")
    if webhook is not None and not str(webhook).startswith(("http://", "https://")):
        raise runpod_errors.bad_request("webhook must be a URL")
    policy = body.get("policy", {})
    if not isinstance(policy, dict):
        raise runpod_errors.bad_request("policy must be an object")
    timeout_s = policy_seconds(policy, "executionTimeout") or settings.runpod_execution_timeout_s
    ttl_s = policy_seconds(policy, "ttl") or settings.runpod_ttl_s
    if settings.out_of_credit:
        raise runpod_errors.insufficient_credit()
    return JobOrder(endpoint, body["input"], webhook, timeout_s, ttl_s)


def policy_seconds(policy: dict[str, Any], name: str) -> float | None:
    """One time of a job's policy, None where it is left out; 400 outside of what the documentation allows."""
    if name not in policy:
        return None
    low, high = POLICY_MS[name]
    value = policy[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise runpod_errors.bad_request(f"policy.{name} must be from {low} to {high} milliseconds")
    return float(value) / 1000
