"""Errors as `application/problem+json` (RFC 9457): every error of the HTTP interface has this one shape.

What an operation raises becomes a status here, in one table. No answer carries a stack trace, an SQL statement,
a secret or a signed address.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lora_pipeline.providers.secrets import scrubbed

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_AGAIN_S = 5
_MOST_FAULTS = 10
_SHOWN = 60


class ProblemDetail(BaseModel):
    """What every error looks like."""

    type: str
    title: str
    status: int
    detail: str


class Problem(Exception):
    """An error that a route answers with; `detail` says what was got, what was expected, what to do."""

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


_UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
_STATUS = {
    # Only what was sent can hold them: NUL for PostgreSQL, half a surrogate pair for every database.
    "builtins.UnicodeEncodeError": HTTPStatus.UNPROCESSABLE_ENTITY,
    "sqlalchemy.exc.DataError": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.access.callers.NotAllowed": HTTPStatus.FORBIDDEN,
    "lora_pipeline.access.links.LinkRefused": HTTPStatus.FORBIDDEN,
    "lora_pipeline.access.repeats.StillAnswering": HTTPStatus.CONFLICT,
    "lora_pipeline.access.repeats.KeyUsedOtherwise": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.identity.errors.IdentityError": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.image_sets.freezing.SetBlocked": HTTPStatus.BAD_REQUEST,
    "lora_pipeline.image_sets.inbox.IntakeError": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.image_sets.uploads.UploadUnknown": HTTPStatus.NOT_FOUND,
    "lora_pipeline.image_sets.web_images.ImagesUnavailable": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.image_sets.web_images.TooManyImages": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.lineage.meanings.AmbiguousId": HTTPStatus.CONFLICT,
    "lora_pipeline.lineage.meanings.LineageNotFound": HTTPStatus.NOT_FOUND,
    "lora_pipeline.trainings.asking.ModelMismatch": HTTPStatus.CONFLICT,
    "lora_pipeline.trainings.asking.TooFewImages": HTTPStatus.BAD_REQUEST,
    "lora_pipeline.trainings.intents.TrainingRefused": HTTPStatus.CONFLICT,
    "lora_pipeline.database.observing.Observing": HTTPStatus.CONFLICT,
    "lora_pipeline.trainings.listing.TrainingNotFound": HTTPStatus.NOT_FOUND,
    "lora_pipeline.trainings.parameters.ParametersRefused": HTTPStatus.BAD_REQUEST,
    "lora_pipeline.versions.bulk_jobs.JobNotFound": HTTPStatus.NOT_FOUND,
    "lora_pipeline.versions.bulk_sync.AnotherAtWork": HTTPStatus.CONFLICT,
    "lora_pipeline.versions.history.TimeNotUnderstood": HTTPStatus.UNPROCESSABLE_ENTITY,
    "lora_pipeline.versions.lookup.ModelNotFound": HTTPStatus.NOT_FOUND,
    "lora_pipeline.versions.pinning.ChoiceRefused": HTTPStatus.CONFLICT,
    "lora_pipeline.versions.resolve.NothingServed": HTTPStatus.NOT_FOUND,
    "lora_pipeline.versions.version_lookup.VersionNotFound": HTTPStatus.NOT_FOUND,
    # What a person has to mend, or what passes: the request itself was fine.
    "lora_pipeline.archives.entries.TrainingZipError": _UNAVAILABLE,
    "lora_pipeline.database.migrate.SchemaOutdated": _UNAVAILABLE,
    "lora_pipeline.objects.errors.ObjectStoreError": _UNAVAILABLE,
    "lora_pipeline.providers.protocol.ProviderError": _UNAVAILABLE,
    "lora_pipeline.settings.SettingsError": _UNAVAILABLE,
    "sqlalchemy.exc.OperationalError": _UNAVAILABLE,
    "sqlalchemy.exc.TimeoutError": _UNAVAILABLE,
}
"""Class → status; a subclass has its parent's. By name, because importing all of them would load all of them."""

_UNSTORABLE = ("builtins.UnicodeEncodeError", "sqlalchemy.exc.DataError")
_ZIP_FAILED = "Failed to create training ZIP"
"""What applications know: the images could not be had, or not be packed."""
_ABOUT_THE_ZIP = frozenset(
    {
        "lora_pipeline.archives.entries.TrainingZipError",
        "lora_pipeline.image_sets.web_images.ImagesUnavailable",
    }
)


def problem_of(error: Exception) -> Problem | None:
    """The problem that an operation's error is; None for a defect of ours."""
    if isinstance(error, Problem):
        return error
    names = [f"{parent.__module__}.{parent.__qualname__}" for parent in type(error).__mro__]
    status = next((_STATUS[name] for name in names if name in _STATUS), None)
    if status is None:
        return None
    detail = str(error)
    if status is HTTPStatus.UNPROCESSABLE_ENTITY and names[0] in _UNSTORABLE:
        detail = "a text holds a character that cannot be stored, or a number is too large"
    elif names[0].startswith("sqlalchemy."):
        # Statement and parameters stand in its text.
        detail = f"the database does not answer ({type(error).__name__}). Try again"
    elif _ABOUT_THE_ZIP.intersection(names) and not detail.startswith(_ZIP_FAILED):
        detail = f"{_ZIP_FAILED}: {detail}"
    return Problem(status, scrubbed(detail), retry_after=_AGAIN_S if status is _UNAVAILABLE else None)


def problem_document(status: int, detail: str) -> dict[str, Any]:
    """One problem, as JSON."""
    title = HTTPStatus(status).phrase
    return ProblemDetail(
        type="about:blank", title=title, status=status, detail=_printable(detail)
    ).model_dump()


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The answer for one problem."""
    body = problem_document(status, detail)
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def answer_with_problems(app: FastAPI) -> None:
    """Let every error of the application come out as a problem."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers, detail = dict(error.headers or {}), str(error.detail)
        if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
            detail = "there is nothing at this address; /docs lists what there is"
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"got {request.method[:20]}; expected {headers.get('Allow', 'another method')}"
        return problem_response(error.status_code, detail, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        if _unread_body(request, error):
            kind = request.headers.get("content-type", "")[:100] or "no Content-Type"
            detail = f"got {kind}; expected a JSON body with Content-Type: application/json"
            return problem_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
        found = "; ".join(_fault(one) for one in error.errors()[:_MOST_FAULTS])
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, scrubbed(found))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return problem_response(
            HTTPStatus.BAD_REQUEST, "the request ended before its body did; send it again"
        )

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> Response:
        # The server logs it with its traceback; whoever asked learns nothing about the inside.
        return problem_response(
            HTTPStatus.INTERNAL_SERVER_ERROR, "this server has a defect; its log says more"
        )


class OperationErrors:
    """ASGI middleware inside the application: what operations raise comes out as a problem, not as a defect."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            problem = None if begun else problem_of(error)
            if problem is None:
                raise
            if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                # The route, not the path: one of them holds a secret.
                route = getattr(scope.get("route"), "path", "no route")
                log.warning("%s %s: %s", scope.get("method"), route, problem.detail)
            headers = {}
            if problem.retry_after is not None:
                headers["Retry-After"] = str(max(1, round(problem.retry_after)))
            if problem.status is HTTPStatus.UNAUTHORIZED:
                headers["WWW-Authenticate"] = "Bearer"
            await problem_response(problem.status, problem.detail, headers)(scope, receive, send)


def _unread_body(request: Request, error: RequestValidationError) -> bool:
    """Whether the body was not even read as JSON, because the request does not say that it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    return not is_json and any(one["loc"] == ("body",) and one["input"] is not None for one in error.errors())


def _fault(error: Any) -> str:
    """What is wrong with one part of a request: where, what was expected, and what was got where that is short."""
    if error["type"] == "json_invalid":
        return f"the body is no JSON: {error.get('ctx', {}).get('error', 'unreadable')} at character {error['loc'][-1]}"
    if error["type"] == "missing" and error["loc"] == ("body",):
        return "got no body; expected a JSON body with Content-Type: application/json"
    where = ".".join(str(part) for part in error["loc"])
    got = error.get("input")
    shown = f"; got {got!r}" if isinstance(got, str | int | float) and len(repr(got)) <= _SHOWN else ""
    return f"{where}: {error['msg']}{shown}"


def _printable(text: str) -> str:
    """Text that JSON in UTF-8 can carry: what was got may hold half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
