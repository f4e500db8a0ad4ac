"""`HEAD`: what `GET` answers, without its body. Monitors and download programs ask so before they ask for more."""

from __future__ import annotations

from typing import Any


class HeadAsGet:
    """ASGI middleware that lets routes answer HEAD as they answer GET. The server, which knows better, sends no body."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)
