"""Errors in the provider's shapes: `application/problem+json`, with the words of recorded answers."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response

from lora_pipeline.simulator.trainers import InvalidField


class Problem(Exception):
    """An answer that is an error; handlers raise it, the application sends it."""

    def __init__(self, status: int, detail: str, title: str | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body: dict[str, Any] = {"detail": detail, "status": status}
        if title:
            self.body["title"] = title
        self.body |= more
        self.headers: dict[str, str] = {}

    def response(self) -> Response:
        """The answer to send."""
        return problem_response(self.status, self.body, self.headers)


def problem_response(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A problem document with its media type."""
    return Response(
        json.dumps(body), status_code=status, headers=headers, media_type="application/problem+json"
    )


def unauthenticated() -> Problem:
    """401: no token, or not one of ours."""
    return Problem(401, "You did not pass a valid authentication token", "Unauthenticated")


def insufficient_credit() -> Problem:
    """402: nothing was created."""
    return Problem(
        402,
        "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to "
        "purchase credit. Once you purchase credit, please wait a few minutes before trying again.",
        "Insufficient credit",
    )


def not_found(detail: str = "The requested resource could not be found.") -> Problem:
    """404 of anything that is addressed by its id or name."""
    return Problem(404, detail, "Not found")


def missing_destination() -> Problem:
    """404 of a training whose destination model does not exist, or belongs to somebody else."""
    return Problem(404, "The specified training destination does not exist")


def invalid_version(status: int = 422) -> Problem:
    """422 of a trainer version that nobody knows."""
    return Problem(
        status,
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
        "Invalid version or not permitted",
    )


def invalid_input(fields: list[InvalidField]) -> Problem:
    """422 with every fault of a request."""
    lines = "".join(f"- {field.field}: {field.description}\n" for field in fields)
    return Problem(422, lines, "Input validation failed", invalid_fields=[field.__dict__ for field in fields])


def throttled(per_minute: int, retry_after: int, *, creating: bool) -> Problem:
    """429: nothing was done. The wait stands in the body, in the text and in the header."""
    what = "Your rate limit for creating predictions is" if creating else "Your rate limit is"
    problem = Problem(
        429,
        f"Request was throttled. {what} {per_minute} requests per minute. "
        f"Your rate limit resets in ~{retry_after}s.",
        retry_after=retry_after,
    )
    problem.headers["Retry-After"] = str(retry_after)
    return problem


def conflict(detail: str) -> Problem:
    """409 of a model whose name is taken."""
    return Problem(409, detail, "Conflict")
