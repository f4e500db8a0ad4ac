"""A tiny HTTP server that answers what a test tells it, byte for byte: for answers that no simulator should give."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer. `trickle` seconds pass after each byte of the body; `promise` overrides its length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    trickle: float = 0.0
    promise: int | None = None


def json_reply(document: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers=headers)


HTML = Reply(200, b"<!doctype html><title>Just a moment...</title>", "text/html")


class ScriptedServer:
    """Context manager; `received` holds every request, `url` its address."""

    def __init__(self, answer: Reply | Callable[[Received], Reply]) -> None:
        self.received: list[Received] = []
        self._stopping = threading.Event()
        script = (lambda _: answer) if isinstance(answer, Reply) else answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Received(self.command, self.path, headers, self.rfile.read(length))
                outer.received.append(request)
                reply = script(request)
                self.send_response(reply.status)
                promised = len(reply.body) if reply.promise is None else reply.promise
                for name, value in {
                    "Content-Type": reply.content_type,
                    "Content-Length": str(promised),
                    **reply.headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self._send(reply)
                self.close_connection = promised != len(reply.body)

            def _send(self, reply: Reply) -> None:
                if not reply.trickle:
                    self.wfile.write(reply.body)
                    return
                try:
                    for byte in reply.body:
                        if outer._stopping.is_set():
                            return
                        self.wfile.write(bytes([byte]))
                        time.sleep(reply.trickle)
                except OSError:
                    pass

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
