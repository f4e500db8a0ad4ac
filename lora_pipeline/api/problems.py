"""Errors as `application/problem+json` (RFC 9457): every error of the HTTP interface has this one shape."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException


class Problem(Exception):
    """An error that a route answers with; `detail` says what was got, what was expected, what to do."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem_response(status: int, detail: str) -> Response:
    """The answer for one problem."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def answer_with_problems(app: FastAPI) -> None:
    """Let every error of the application come out as a problem."""

    @app.exception_handler(Problem)
    async def known(_: Request, problem: Problem) -> Response:
        return problem_response(problem.status, problem.detail)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return problem_response(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        )
        return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, found)
