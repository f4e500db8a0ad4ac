"""RunPod's refusals. It publishes their statuses and no schema of their bodies: a plain `error` text. Inferred."""

from __future__ import annotations

import json

from fastapi import Response

from lora_pipeline.simulator.problems import Problem


class Refusal(Problem):
    """An answer of RunPod's that is an error."""

    def response(self) -> Response:
        """The answer to send."""
        body = json.dumps({"error": self.body["detail"]})
        return Response(body, self.status, self.headers, media_type="application/json")


def unauthorized() -> Refusal:
    """401: no key, or not one of ours."""
    return Refusal(401, "unauthorized")


def insufficient_credit() -> Refusal:
    """402: nothing was created. Inferred: RunPod documents no status for an empty account."""
    return Refusal(402, "insufficient balance")


def not_found(what: str) -> Refusal:
    """404: an endpoint or a job that does not exist, or no longer."""
    return Refusal(404, f"{what} not found")


def bad_request(what: str) -> Refusal:
    """400: a request that makes no sense."""
    return Refusal(400, what)


def throttled(retry_after: int) -> Refusal:
    """429: nothing was done. Inferred: whether it says how long to wait."""
    refusal = Refusal(429, "too many requests")
    refusal.headers["Retry-After"] = str(retry_after)
    return refusal


def of_status(status: int, retry_after: int | None) -> Refusal:
    """Any error that a fault asks for."""
    known = {401: unauthorized(), 402: insufficient_credit(), 404: not_found("job")}
    if status == 429:
        return throttled(10 if retry_after is None else retry_after)
    return known.get(status) or Refusal(status, "internal server error")
