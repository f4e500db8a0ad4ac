"""200 clients that poll the progress of their trainings, next to the same clients at a route that answers a constant.

Each client has a key and an open training of its own; the provider answers after 150 ms, and what it says is
refreshed behind the answers. First they poll as front ends do (every five seconds, spread evenly), which gives the
times; then as fast as they are answered, which gives the highest rate. The constant route is in the same application,
behind the same middleware, and needs neither key nor database.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx

from lora_pipeline.access.keys import create_key
from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline_tests.bench.rows import BenchRow
from lora_pipeline_tests.bench.status_tick_row import LATENCY_MS, _simulator, add_open_runs

CLIENTS, EVERY_S = 200, 5.0
P99_BUDGET_MS = 250.0

_SERVER = """
import sys
import uvicorn
from lora_pipeline.api.app import create_app
from lora_pipeline.api.server import server_config
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings

app = create_app(Connections(Settings(
    home=sys.argv[1], database_url=sys.argv[2], replicate_base_url=sys.argv[3], replicate_api_token="r8_bench",
    api_rate=1_000_000,
)))

@app.get("/constant")
async def constant():
    return {"status": "training", "progress": 50}

server = uvicorn.Server(server_config(app))

async def main():
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving

import asyncio
asyncio.run(main())
"""


class Request(NamedTuple):
    """What one client sends again and again."""

    target: str
    key: str


@dataclass(frozen=True)
class Load:
    """What all clients saw. Milliseconds."""

    p50: float
    p99: float
    rate: float
    """Answers a second."""
    errors: int


def run(quick: bool) -> list[BenchRow]:
    clients, seconds = (20, 1.0) if quick else (CLIENTS, 15.0)
    every = EVERY_S if not quick else 0.5
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as folder, _simulator(Path(folder)) as provider:
        database = Database(f"sqlite:///{folder}/lora.sqlite3")
        upgrade(database)
        control = httpx.Client(base_url=f"{provider}/simulator", timeout=120)
        seeded = control.post("/trainings", json={"count": clients}).raise_for_status().json()["trainings"]
        add_open_runs(database, seeded)
        control.post("/clock/advance", json={"seconds": 120}).raise_for_status()
        control.post("/settings", json={"latency_ms": LATENCY_MS}).raise_for_status()
        polls = [
            Request(f"/api/training/progress?modelId=bench-{n}", _key(database, n)) for n in range(clients)
        ]
        constants = [Request("/constant", poll.key) for poll in polls]
        with _server(Path(folder), str(database.url), provider) as port:
            _polling(port, polls, every, every)  # every client connected, every row looked at once
            paced_constant = _polling(port, constants, every, seconds)
            paced = _polling(port, polls, every, seconds)
            fast_constant = _polling(port, constants, 0.0, seconds / 3)
            fast = _polling(port, polls, 0.0, seconds / 3)
        database.close()
    errors = sum(load.errors for load in (paced, fast, paced_constant, fast_constant))
    return [
        BenchRow(
            what=f"{clients} clients polling progress",
            measured=f"every {every:g} s: p50 {paced.p50:.1f} ms, p99 {paced.p99:.1f} ms; at most {fast.rate:.0f}/s",
            baseline=f"a constant: p50 {paced_constant.p50:.1f} ms, p99 {paced_constant.p99:.1f} ms; "
            f"at most {fast_constant.rate:.0f}/s",
            ratio=fast_constant.rate / fast.rate,
            budget=f"p99 ≤ {P99_BUDGET_MS:g} ms, ≥ 2 × their rate, no error",
            ok=errors == 0 and paced.p99 <= P99_BUDGET_MS and fast.rate >= 2 * clients / every,
            note=f"{errors} errors; ratio: highest rate of the constant to that of progress; one process, SQLite",
        )
    ]


def _key(database: Database, number: int) -> str:
    user = f"bench-{number}"
    return create_key(database, user, user_id=user, actor="bench", now=datetime.now(UTC)).key


@contextmanager
def _server(folder: Path, database_url: str, provider: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(folder), database_url, provider],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate()


def _polling(port: int, requests: Sequence[Request], every: float, seconds: float) -> Load:
    """All clients at once for so long; each waits for its answer, and then for its next turn."""
    times: list[float] = []
    errors = 0

    async def client(number: int, request: Request) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"GET {request.target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {request.key}\r\n\r\n"
        ).encode()
        turn = began + every * number / len(requests)
        while turn < began + seconds:
            await asyncio.sleep(max(0.0, turn - time.perf_counter()))
            sent = time.perf_counter()
            writer.write(head)
            status = await _answer(reader)
            times.append((time.perf_counter() - sent) * 1000)
            errors += status != 200
            turn = max(turn + every, time.perf_counter()) if every == 0 else turn + every
        writer.close()

    async def everybody() -> None:
        await asyncio.gather(*(client(number, request) for number, request in enumerate(requests)))

    began = time.perf_counter() + 0.2
    asyncio.run(everybody())
    took = time.perf_counter() - began
    times.sort()
    return Load(times[len(times) // 2], times[len(times) * 99 // 100], len(times) / took, errors)


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one answer, however long; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
    await reader.readexactly(int(lengths[0]))
    return int(lines[0].split(" ")[1])
