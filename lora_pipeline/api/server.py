"""How the application is served: uvicorn, with bounds on what it reads before the application hears of a request.

By itself uvicorn waits for ever for the rest of a request's head, and keeps a head of any length: a few idle
connections, or one header without an end, would be enough to stop the server. Bodies are bounded in `bodies`.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lora_pipeline.api.problems import MEDIA_TYPE, problem_document

# Clients poll every five seconds: a connection closed after just that time would be in use again.
KEEP_ALIVE_S = 75
HEAD_S = 10.0
"""How long the request line and the headers may take to come."""
HEAD_BYTES = 64 * 1024
"""More than any browser sends; proxies allow 8 to 32 KiB."""


def server_config(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> Config:
    """How uvicorn serves the application."""
    return Config(
        app,
        host=host,
        port=port,
        http=BoundedHead,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


class BoundedHead(HttpToolsProtocol):
    """One connection. It is closed where the head of a request comes too slowly (408) or is too large (431)."""

    _deadline: asyncio.TimerHandle | None = None
    """Set while the head of a request is awaited."""
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        if self._deadline is None:
            self._await_head()
        self._head_bytes = max(1, self._head_bytes)  # it began in what came with the request before it
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._deadline is not None and self._head_bytes > HEAD_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the headers are larger than the {HEAD_BYTES:,} bytes allowed",
            )

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, f"this is no HTTP request: {msg}")

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_S, self._too_slow)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the headers did not come within {HEAD_S:.0f} s")
        else:
            self._head_is_there()
            self.transport.close()  # it only connected, as browsers do ahead of time: there is nothing to answer

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._head_is_there()
        if self.transport.is_closing():
            return
        body = json.dumps(problem_document(status, detail)).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
