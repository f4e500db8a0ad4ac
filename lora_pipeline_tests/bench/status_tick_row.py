"""One tick of the training monitor at three sizes, with a provider that answers after 150 ms."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, User, UserModel
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.trainings.following import FollowReport, FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline_tests.bench.rows import BenchRow

LATENCY_MS = 150
SIZES = (100, 1_000, 10_000)
BUDGETS = {1_000: (3.0, 20), 10_000: (20.0, 130)}
_SAMPLE = 20
_RULES = FollowRules(timedelta(seconds=40), ReconcileRules(timedelta(minutes=15)))


@dataclass(frozen=True)
class _Tick:
    open: int
    idle_seconds: float
    requests: int
    finish_seconds: float
    one_get_seconds: float


def run(quick: bool) -> list[BenchRow]:
    """Each size on a simulator of its own process; the baseline is one GET each, on a sample, scaled."""
    ticks = [_measure(size) for size in (SIZES[:2] if quick else SIZES)]
    curve = ", ".join(f"{tick.open:,}: {1000 * tick.idle_seconds / tick.open:.2f} ms" for tick in ticks)
    return [_row(tick, curve) for tick in ticks]


def _row(tick: _Tick, curve: str) -> BenchRow:
    seconds, requests = BUDGETS.get(tick.open, (3.0, 20))
    baseline = tick.one_get_seconds * tick.open
    return BenchRow(
        f"one status tick, {tick.open:,} open trainings",
        f"{tick.idle_seconds:.2f} s, {tick.requests} requests",
        f"one GET each: {baseline:,.0f} s ({_SAMPLE} measured, scaled)",
        tick.idle_seconds / baseline,
        f"≤ {seconds:.0f} s, ≤ {requests} requests",
        ok=tick.idle_seconds <= seconds and tick.requests <= requests,
        note=f"the tick in which all of them ended: {tick.finish_seconds:.2f} s; cost of one training, idle: {curve}",
    )


def _measure(size: int) -> _Tick:
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as folder, _simulator(Path(folder)) as url:
        database = Database(f"sqlite:///{folder}/lora.sqlite3")
        upgrade(database)
        control = httpx.Client(base_url=f"{url}/simulator", timeout=120)
        seeded = control.post("/trainings", json={"count": size}).raise_for_status().json()["trainings"]
        control.post("/clock/advance", json={"seconds": 120}).raise_for_status()
        add_open_runs(database, seeded)
        control.post("/settings", json={"latency_ms": LATENCY_MS}).raise_for_status()
        provider = ReplicateProvider(url, "r8_bench", timeout=10.0)
        assert provider.simulated
        follow_trainings(database, provider, _RULES)  # every row moves to running once
        control.post("/requests/reset").raise_for_status()
        idle, report = _tick(database, provider)
        requests = control.get("/requests").json()["total"]
        assert report.open == size
        one_get = _one_get(provider, seeded)
        control.post("/clock/advance", json={"seconds": 7200}).raise_for_status()
        finish, ended = _tick(database, provider)
        assert len(ended.moved) == size
        return _Tick(size, idle, requests, finish, one_get)


def _tick(database: Database, provider: ReplicateProvider) -> tuple[float, FollowReport]:
    started = time.perf_counter()
    report = follow_trainings(database, provider, _RULES)
    return time.perf_counter() - started, report


def _one_get(provider: ReplicateProvider, seeded: list[dict[str, Any]]) -> float:
    started = time.perf_counter()
    for training in seeded[:_SAMPLE]:
        provider.get_training(_id(training))
    return (time.perf_counter() - started) / min(_SAMPLE, len(seeded))


def _id(training: Any) -> str:
    return str(training["id"] if isinstance(training, dict) else training)


def add_open_runs(database: Database, seeded: list[Any]) -> None:
    now = datetime.now(UTC)
    keys = [f"bench-{number}" for number in range(len(seeded))]
    stamps = {"created_at": now, "updated_at": now}
    with database.begin() as session:
        session.execute(insert(User), [{"id": key, "is_house": False, **stamps} for key in keys])
        session.execute(
            insert(UserModel),
            [
                {
                    "id": number,
                    "user_id": key,
                    "model_key": key,
                    "model_name": key,
                    "trigger_word": key,
                    **stamps,
                }
                for number, key in enumerate(keys, 1)
            ],
        )
        session.execute(
            insert(TrainingRun),
            [
                {
                    "user_id": key,
                    "model_id": number,
                    "attempt": 1,
                    "token": f"{number:032x}",
                    "provider": "replicate",
                    "training_id": _id(training),
                    "simulated": True,
                    "destination": f"acme/{key}-selfie-lora",
                    "base_model": "flux-dev",
                    "trainer_requested": FLUX_TRAINER,
                    "trigger_word": key,
                    "state": "submitted",
                    "status": "starting",
                    "post_started_at": now,
                    "submitted_at": now,
                    "state_changed_at": now,
                    **stamps,
                }
                for number, (key, training) in enumerate(zip(keys, seeded, strict=True), 1)
            ],
        )


@contextmanager
def _simulator(folder: Path) -> Iterator[str]:
    """A simulator in a process of its own: in a thread it would share this one's interpreter lock."""
    script = (
        "from lora_pipeline.simulator.running import RunningSimulator\n"
        "import sys\n"
        "with RunningSimulator() as simulator:\n"
        "    print(simulator.url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()
