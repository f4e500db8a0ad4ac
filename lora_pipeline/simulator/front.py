"""What happens to every request before and after its handler: counting, latency, the token, rate limits, faults.

A pure ASGI layer, because a fault must be able to swallow an answer, cut it, or close the connection under it. For
the last, the server registers each connection's transport here by the client's address (server.py).
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_pipeline.simulator import problems, runpod_errors
from lora_pipeline.simulator.faults import Fault
from lora_pipeline.simulator.operations import CREATIONS, operation_of
from lora_pipeline.simulator.runpod_gate import job_refusal
from lora_pipeline.simulator.settings import SIMULATED_HEADER
from lora_pipeline.simulator.weights import HTML_PAGE

if TYPE_CHECKING:
    from lora_pipeline.simulator.simulator import Simulator

Transports = dict[tuple[str, int], asyncio.Transport]
HANG_S = 3600.0
LABEL = [(SIMULATED_HEADER.lower().encode(), b"true")]


class Front:
    """ASGI middleware around the simulator's application."""

    def __init__(self, app: ASGIApp, simulator: Simulator) -> None:
        self._app = app
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        headers = list(LABEL)
        if not path.startswith(("/v1/", "/v2/", "/xezq/")):
            await self._app(scope, receive, _labelled(send, headers))
            return
        operation = operation_of(str(scope["method"]), path)
        simulator = self._simulator
        simulator.requests[operation] += 1
        if simulator.settings.latency_ms:
            if operation in CREATIONS:
                # What has arrived takes effect, even where its client gives up during the wait.
                receive = _replayed_body(await _read_body(receive))
            await asyncio.sleep(simulator.settings.latency_ms / 1000)
        refusal = self._refusal(scope, operation, path, headers)
        labelled = _labelled(send, headers)
        if refusal is not None:
            await refusal.response()(scope, receive, labelled)
            return
        fault = simulator.faults.take(operation, path)
        if fault is None:
            await self._app(scope, receive, labelled)
        else:
            simulator.happened[f"{operation} {fault.kind}"] += 1
            await self._act_out(fault, scope, receive, labelled)

    def _refusal(
        self, scope: Scope, operation: str, path: str, headers: list[tuple[bytes, bytes]]
    ) -> problems.Problem | None:
        """401 or 429, or nothing; puts the state of Replicate's rate limit into the answer's headers."""
        if path.startswith("/v2/"):
            return job_refusal(self._simulator, scope, operation)
        if not path.startswith("/v1/"):
            return None
        settings = self._simulator.settings
        scheme, _, token = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        known = token == settings.api_token if settings.api_token is not None else bool(token.strip())
        if scheme not in ("Bearer", "Token") or not known:
            return problems.unauthenticated()
        creating = operation in CREATIONS
        per_minute = settings.create_per_minute if creating else settings.others_per_minute
        left, reset = self._simulator.limits[creating].hit(per_minute)
        headers.append((b"ratelimit-remaining", str(left or 0).encode()))
        headers.append((b"ratelimit-reset", str(reset).encode()))
        if left is None:
            return problems.throttled(per_minute or 0, reset, creating=creating)
        return None

    async def _act_out(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Do what the fault asks for."""
        answer: list[Message] | None = None
        if fault.kind == "delay" and fault.moment == "before":
            # Read first: the request has arrived and lands late, even where its client has gone by then.
            receive = _replayed_body(await _read_body(receive))
            await asyncio.sleep(fault.seconds)
        if fault.moment == "after" or fault.kind in ("delay", "cut_body", "malformed_item"):
            answer = []
            await self._app(scope, receive, _collector(answer))
        match fault.kind:
            case "drop":
                await self._drop(scope)
            case "hang":
                await self._hang(receive)
            case "answer":
                await _fault_response(fault, str(scope["path"]))(scope, receive, send)
            case "cut_body":
                await self._send_half(scope, answer or [], send)
            case "malformed_item":
                await _replay(_with_item(answer or [], fault.item), send)
            case _:
                if fault.moment == "after":
                    await asyncio.sleep(fault.seconds)
                await _replay(answer or [], send)

    async def _drop(self, scope: Scope) -> None:
        """Close the connection without a byte of an answer."""
        client: tuple[str, int] = tuple(scope["client"])
        transport = self._simulator.transports.get(client)
        if transport is None:
            raise RuntimeError(
                "cannot drop the connection: start the simulator through serve() or RunningSimulator"
            )
        transport.abort()
        # The server must learn of the lost connection before this request ends, or it would try to answer 500.
        await asyncio.sleep(0.01)

    async def _hang(self, receive: Receive) -> None:
        """Wait until the client gives up."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with_deadline = asyncio.wait_for(gone(), HANG_S)
        try:
            await with_deadline
        except TimeoutError:
            return

    async def _send_half(self, scope: Scope, answer: list[Message], send: Send) -> None:
        """The whole answer's headers, half of its body, then a closed connection."""
        start, body = answer[0], _body(answer)
        await send(start)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport = self._simulator.transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.close()
        await asyncio.sleep(0.01)


def _labelled(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    async def labelled(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return labelled


async def _read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed_body(body: bytes) -> Receive:
    async def replayed() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _collector(answer: list[Message]) -> Send:
    async def collect(message: Message) -> None:
        answer.append(message)

    return collect


async def _replay(answer: list[Message], send: Send) -> None:
    for message in answer:
        await send(message)


def _body(answer: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in answer if message["type"] == "http.response.body")


def _with_item(answer: list[Message], item: object) -> list[Message]:
    """The same list page with one more result in its middle, which is not what a client expects."""
    page: dict[str, Any] = json.loads(_body(answer))
    results = page["results"]
    results.insert(len(results) // 2, item)
    body = json.dumps(page).encode()
    kept = [(name, value) for name, value in answer[0]["headers"] if name.lower() != b"content-length"]
    start = {**answer[0], "headers": [*kept, (b"content-length", str(len(body)).encode())]}
    return [start, {"type": "http.response.body", "body": body}]


def _fault_response(fault: Fault, path: str) -> ASGIApp:
    """The answer that a fault of kind `answer` gives."""
    from fastapi import Response

    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    if fault.location:
        headers["Location"] = fault.location
    if fault.body == "html":
        return Response(HTML_PAGE, fault.status, headers, media_type="text/html")
    if fault.body == "empty":
        return Response(b"", fault.status, headers)
    if path.startswith("/v2/"):
        refusal = runpod_errors.of_status(fault.status, fault.retry_after)
        refusal.headers |= headers
        return refusal.response()
    known = {
        402: problems.insufficient_credit(),
        401: problems.unauthenticated(),
        404: problems.not_found(),
        429: problems.throttled(6, 10 if fault.retry_after is None else fault.retry_after, creating=True),
    }
    problem = known.get(
        fault.status, problems.Problem(fault.status, "Internal server error", "Internal Server Error")
    )
    problem.headers = headers
    return problem.response()
