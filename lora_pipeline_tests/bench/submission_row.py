"""Image sets that are normalised already, from ready to submitted, with a provider that answers after 150 ms.

Measured is the Dagster run that the sensor asks for, a process of its own, at three sizes and once with nothing to
do. Beside it: a run for each set, as many at once as this project's instance lets run. The provider throttles as
Replicate does. Store, inbox and database are a folder on this machine, so each ZIP is uploaded to the provider: one
request a set more than with a bucket. Making the sets is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
from pydantic import SecretStr

from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline_tests.bench.ready_sets import PHOTOGRAPHS, make_ready_sets
from lora_pipeline_tests.bench.rows import BenchRow
from lora_pipeline_tests.bench.status_tick_row import LATENCY_MS, _simulator

SIZES, QUICK_SIZES = (100, 300, 1_000), (10, 20, 40)
FASTER, GROWN, FLAT_MB = 20.0, 1.25, 20.0
LIMITS = {"create_per_minute": 600, "others_per_minute": 3_000}
"""Requests that Replicate takes a minute, as its documentation says."""
AT_ONCE = 2
"""Runs at once: `max_concurrent_runs` in dagster.yaml."""
_SAMPLE = 4
PROJECT = Path(__file__).parents[2]


class Run(NamedTuple):
    """One Dagster run: seconds from the start of its process to the end, those on a processor, MB at the peak."""

    seconds: float
    cpu_seconds: float
    megabytes: float


@dataclass(frozen=True)
class _Batch:
    sets: int
    run: Run
    requests: int


@dataclass(frozen=True)
class House:
    """Ready sets, the provider they are for, and the environment of a process that works on them."""

    keys: list[str]
    settings: Settings
    simulator: httpx.Client

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "LORA_HOME": str(self.settings.home),
            "DATABASE_URL": self.settings.resolved_database_url,
            "REPLICATE_API_TOKEN": "r8_bench",
            "REPLICATE_BASE_URL": self.settings.replicate_base_url,
            "DAGSTER_HOME": str(self.settings.home / "dagster"),
        }


def run(quick: bool) -> list[BenchRow]:
    idle, *batches = (_batch(size) for size in (0, *(QUICK_SIZES if quick else SIZES)))
    return [
        _speed_row(batches[-1], _a_run_each(), idle.run),
        _curve_row(batches, idle.run),
        _memory_row(batches, idle.run),
    ]


def _speed_row(batch: _Batch, a_run_each: float, idle: Run) -> BenchRow:
    sets, seconds = batch.sets, batch.run.seconds
    ratio = a_run_each * sets / seconds
    return BenchRow(
        f"{sets:,} image sets of {PHOTOGRAPHS}, ready → submitted",
        f"one run: {seconds:.0f} s, {sets / seconds:.1f} sets a second, {batch.requests / sets:.1f} requests a set",
        f"a run each: {a_run_each * sets:,.0f} s ({_SAMPLE} measured, {AT_ONCE} at once, scaled)",
        ratio,
        f"one run, ≥ {FASTER:.0f} × as fast",
        ok=ratio >= FASTER,
        note=f"a run that finds nothing to start: {idle.seconds:.1f} s",
    )


def _curve_row(batches: list[_Batch], idle: Run) -> BenchRow:
    def each(batch: _Batch, total: float, without: float) -> float:
        return 1_000 * (total - without) / batch.sets

    cpu = [each(batch, batch.run.cpu_seconds, idle.cpu_seconds) for batch in batches]
    clock = [each(batch, batch.run.seconds, idle.seconds) for batch in batches]
    ratio = cpu[-1] / min(cpu[:-1])
    return BenchRow(
        "processor time of one of them",
        _curve(batches, cpu, "ms"),
        "the cheaper of the smaller sizes",
        ratio,
        f"≤ {GROWN} ×: does not grow",
        ok=ratio <= GROWN,
        note=f"by the clock: {_curve(batches, clock, 'ms')}",
    )


def _memory_row(batches: list[_Batch], idle: Run) -> BenchRow:
    peaks = [batch.run.megabytes - idle.megabytes for batch in batches]
    return BenchRow(
        "peak memory of the run over one that finds nothing",
        _curve(batches, peaks, "MB"),
        f"{batches[0].sets:,} sets",
        peaks[-1] / peaks[0],
        f"flat: ≤ {FLAT_MB:.0f} MB more",
        ok=peaks[-1] - peaks[0] <= FLAT_MB,
        note=f"a run that finds nothing: {idle.megabytes:.0f} MB",
    )


def _curve(batches: list[_Batch], figures: list[float], unit: str) -> str:
    return ", ".join(
        f"{batch.sets:,}: {figure:.0f} {unit}" for batch, figure in zip(batches, figures, strict=True)
    )


def _batch(sets: int) -> _Batch:
    """The run that the sensor asks for, under the lease that its tick took."""
    from dagster import DagsterInstance

    from lora_pipeline.trainings.start_batch import work_to_start

    with _house(sets) as house:
        connections = Connections(house.settings)
        lease = work_to_start(connections).lease or ""
        connections.database.close()
        config = house.settings.home / "run.json"
        config.write_text(json.dumps({"ops": {"start_ready_trainings": {"config": {"lease": lease}}}}))
        done = _dagster_run(house, "start_trainings", "-c", str(config))
        paid = house.simulator.get("/paid").json()
        with DagsterInstance.from_config(house.environment["DAGSTER_HOME"]) as instance:
            runs = instance.get_runs_count()
        assert (paid["count"], paid["paid_twice"], runs) == (sets, {}, 1), (paid["count"], runs)
        return _Batch(sets, done, house.simulator.get("/requests").json()["total"])


def _a_run_each() -> float:
    """Seconds a set where each has a run of its own: the job with which a person trains one model."""
    from dagster import DagsterInstance

    from lora_pipeline.defs.partitions import add_models

    def one(key: str) -> None:
        _dagster_run(house, "train_model", "--tags", json.dumps({"dagster/partition": key}))

    with _house(_SAMPLE) as house, ThreadPoolExecutor(AT_ONCE) as pool:
        with DagsterInstance.from_config(house.environment["DAGSTER_HOME"]) as instance:
            add_models(instance, house.keys)
        started = time.perf_counter()
        list(pool.map(one, house.keys))
        seconds = time.perf_counter() - started
        assert house.simulator.get("/paid").json()["count"] == _SAMPLE
        return seconds / _SAMPLE


@contextmanager
def _house(sets: int) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as folder, _simulator(Path(folder)) as url:
        settings = Settings(
            home=Path(folder) / "home",
            database_url=f"sqlite:///{folder}/home/lora.sqlite3",
            replicate_api_token=SecretStr("r8_bench"),
            replicate_base_url=url,
        )
        keys = make_ready_sets(settings, sets)
        (settings.home / "dagster").mkdir()
        (settings.home / "dagster" / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
        with httpx.Client(base_url=f"{url}/simulator", timeout=300) as simulator:
            simulator.post("/settings", json={"latency_ms": LATENCY_MS, **LIMITS}).raise_for_status()
            yield House(keys, settings, simulator)


def _dagster_run(house: House, job: str, *options: str) -> Run:
    command = [sys.executable, "-m", "lora_pipeline_tests.bench.dagster_process", "job", "execute"]
    command += ["-m", "lora_pipeline.definitions", "-j", job, *options]
    started = time.perf_counter()
    done = subprocess.run(command, env=house.environment, cwd=PROJECT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{job}: {done.stderr.strip()[-500:]}")
    return Run(seconds, *json.loads(done.stdout.strip().rpartition("\n")[2]))
