"""A bulk sync in which every model is behind, at three sizes, with a provider that answers after 150 ms."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import insert

from lora_pipeline.connections import Connections
from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.settings import Settings
from lora_pipeline.versions.bulk_sync import BulkOptions, BulkReport, bulk_sync
from lora_pipeline_tests.bench.rows import BenchRow
from lora_pipeline_tests.bench.status_tick_row import LATENCY_MS, _simulator

SIZES = (100, 1_000, 10_000)
BUDGET_S, MODELS_A_REQUEST = 25.0, 50
_SAMPLE = 20


@dataclass(frozen=True)
class _Measured:
    models: int
    seconds: float
    again_seconds: float
    requests: int
    one_each_seconds: float
    grown_mb: float


def run(quick: bool) -> list[BenchRow]:
    """Each size on a simulator and a SQLite file of its own; the baseline is one request each, on a sample, scaled."""
    sizes = [_measure(size) for size in (SIZES[:2] if quick else SIZES)]
    curve = ", ".join(f"{one.models:,}: {1000 * one.seconds / one.models:.2f} ms" for one in sizes)
    return [_row(one, curve) for one in sizes]


def _row(one: _Measured, curve: str) -> BenchRow:
    baseline = one.one_each_seconds * one.models
    requests = max(2, one.models // MODELS_A_REQUEST)
    return BenchRow(
        f"bulk sync, {one.models:,} models, all of them behind",
        f"{one.seconds:.1f} s, {one.requests} requests",
        f"one request each: {baseline:,.0f} s ({_SAMPLE} measured, scaled)",
        one.seconds / baseline,
        f"≤ {BUDGET_S:.0f} s, ≤ {requests} requests",
        ok=one.seconds <= BUDGET_S and one.requests <= requests,
        note=f"again, nothing to do: {one.again_seconds:.1f} s; memory grown by {one.grown_mb:.0f} MB; "
        f"cost of one model: {curve}",
    )


def _measure(size: int) -> _Measured:
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as folder, _simulator(Path(folder)) as url:
        control = httpx.Client(base_url=f"{url}/simulator", timeout=300)
        control.post("/trainings", json={"count": size}).raise_for_status()
        control.post("/trainings/end").raise_for_status()
        connections = _connections(Path(folder), url)
        add_models(connections.database, size)
        control.post("/settings", json={"latency_ms": LATENCY_MS}).raise_for_status()
        control.post("/requests/reset").raise_for_status()
        before = _peak_mb()
        seconds, report = _sync(connections)
        requests = control.get("/requests").json()["total"]
        assert report.outcomes == {"updated": size}, report.summary
        grown = _peak_mb() - before
        again, nothing = _sync(connections)
        assert nothing.outcomes == {"up_to_date": size}, nothing.summary
        one_each = _one_each(connections)
        connections.database.close()
        return _Measured(size, seconds, again, requests, one_each, grown)


def _connections(folder: Path, url: str) -> Connections:
    address = f"sqlite:///{folder}/lora.sqlite3"
    upgrade(Database(address))
    settings = Settings.model_validate(
        {
            "home": folder / "home",
            "database_url": address,
            "replicate_api_token": "r8_bench",
            "replicate_base_url": url,
        }
    )
    return Connections(settings)


def add_models(database: Database, count: int) -> None:
    """Models as an older application left them: an old version, and no history."""
    now = datetime.now(UTC)
    stamps = {"created_at": now - timedelta(days=30), "updated_at": now - timedelta(days=20)}
    keys = [f"bench-{number}" for number in range(count)]
    with database.begin() as session:
        session.execute(insert(User), [{"id": key, "is_house": False, **stamps} for key in keys])
        session.execute(
            insert(UserModel),
            [
                {
                    "user_id": key,
                    "model_key": key,
                    "model_name": key,
                    "trigger_word": key,
                    "training_status": "completed",
                    "replicate_model_id": f"acme/{key}-selfie-lora",
                    "replicate_version_id": f"acme/{key}-selfie-lora:{number:064x}",
                    "lora_weights_url": f"https://replicate.delivery/xezq/{key}/trained_model.tar",
                    "completed_at": now - timedelta(days=20),
                    **stamps,
                }
                for number, key in enumerate(keys)
            ],
        )


def _sync(connections: Connections) -> tuple[float, BulkReport]:
    started = time.perf_counter()
    report = bulk_sync(connections, BulkOptions(apply=True), actor="bench")
    return time.perf_counter() - started, report


def _one_each(connections: Connections) -> float:
    started = time.perf_counter()
    for number in range(_SAMPLE):
        list(connections.replicate.list_versions(f"acme/bench-{number}-selfie-lora"))
    return (time.perf_counter() - started) / _SAMPLE


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
