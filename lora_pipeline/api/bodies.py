"""ASGI middleware that bounds request bodies: how large, and how slowly they may come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from lora_pipeline.api.problems import problem_response

PAUSE_S = 15.0
"""The longest pause between two pieces of a body."""
_SLOWEST_BYTES_S = 20_000
_GRACE_S = 30.0


class BodyBounds:
    """Refuses bodies above the path's cap (413), announced or not, and those that come too slowly (408)."""

    def __init__(self, app: Any, cap_of: Callable[[str], int]) -> None:
        self.app, self._cap_of = app, cap_of

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cap = self._cap_of(scope["path"])
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > cap:
            await problem_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(cap))(scope, receive, send)
            return
        body = _Body(receive, cap)
        await self.app(scope, body.receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, receive: Any, cap: int) -> None:
        self._receive, self._cap = receive, cap
        self._began = time.monotonic()
        self._size = 0
        self._whole = False

    async def receive(self) -> Any:
        if self._whole:
            # What comes now is the client's going away, for which streaming answers wait as long as they take.
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), PAUSE_S)
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._size > self._cap:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._cap))
            if time.monotonic() - self._began > _GRACE_S + self._size / _SLOWEST_BYTES_S:
                raise _too_slow()
        return message


def _too_slow() -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_TIMEOUT,
        "the body came too slowly; send it again over a better line",
        {"Connection": "close"},
    )


def _too_large(cap: int) -> str:
    return f"the body is larger than the {cap:,} bytes allowed here"
