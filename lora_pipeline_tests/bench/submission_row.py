"""Image sets that are normalised already, from ready to submitted, with a provider that answers after 150 ms.

Measured is the batch, in a process of its own at each of three sizes, and once more as the one Dagster run that the
sensor asks for. Beside it: a Dagster run for each set, as many at once as this project's instance lets run. Store,
inbox and database are a folder on this machine, so each ZIP is uploaded to the provider: one request a set more than
with a bucket. Making the sets is not measured.
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
from lora_pipeline_tests.bench.zip_row import _memory

SIZES, QUICK_SIZES = (100, 300, 1_000), (10, 20, 40)
FASTER, GROWN, FLAT_MB = 20.0, 1.25, 20.0
AT_ONCE = 2
"""Runs at once: `max_concurrent_runs` in dagster.yaml."""
_SAMPLE = 4
PROJECT = Path(__file__).parents[2]


class Batch(NamedTuple):
    """One batch: seconds from its start to its end, of them on a processor, and MB above idle at the peak."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    submitted: int


@dataclass(frozen=True)
class _Measured:
    sets: int
    batch: Batch
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
    sizes = QUICK_SIZES if quick else SIZES
    measured = [_measure(size) for size in sizes]
    return [
        _speed_row(measured[-1], _one_run(sizes[-1]), _a_run_each()),
        _curve_row(measured),
        _memory_row(measured),
    ]


def _speed_row(measured: _Measured, one_run: float, a_run_each: float) -> BenchRow:
    sets, seconds = measured.sets, measured.batch.seconds
    ratio = a_run_each * sets / one_run
    return BenchRow(
        f"{sets:,} image sets, ready → submitted, one Dagster run",
        f"{one_run:.1f} s, {sets / one_run:.1f} a second, {measured.requests / sets:.1f} requests each",
        f"a run each: {a_run_each * sets:,.0f} s ({_SAMPLE} measured, {AT_ONCE} at once, scaled)",
        ratio,
        f"one run, ≥ {FASTER:.0f} × a run each",
        ok=ratio >= FASTER,
        note=f"without Dagster around it: {seconds:.1f} s; {PHOTOGRAPHS} photographs a set; ratio: how many times faster",
    )


def _curve_row(measured: list[_Measured]) -> BenchRow:
    cpu = [1_000 * one.batch.cpu_seconds / one.sets for one in measured]
    ratio = cpu[-1] / min(cpu)
    waited = ", ".join(f"{one.sets:,}: {1_000 * one.batch.seconds / one.sets:.0f} ms" for one in measured)
    return BenchRow(
        "processor time of one set, ready → submitted",
        ", ".join(f"{one.sets:,}: {each:.0f} ms" for one, each in zip(measured, cpu, strict=True)),
        "the cheapest of the sizes",
        ratio,
        f"≤ {GROWN} ×: does not grow",
        ok=ratio <= GROWN,
        note=f"by the clock: {waited}",
    )


def _memory_row(measured: list[_Measured]) -> BenchRow:
    peaks = [one.batch.megabytes for one in measured]
    return BenchRow(
        "peak memory of it over idle",
        ", ".join(f"{one.sets:,}: {one.batch.megabytes:.0f} MB" for one in measured),
        f"{measured[0].sets:,} sets",
        peaks[-1] / peaks[0],
        f"flat: ≤ {FLAT_MB:.0f} MB more",
        ok=peaks[-1] - peaks[0] <= FLAT_MB,
    )


def _measure(sets: int) -> _Measured:
    with _house(sets) as house:
        command = [sys.executable, "-m", "lora_pipeline_tests.bench.submission_row"]
        batch = Batch(*json.loads(_output(command, house)))
        requests = house.simulator.get("/requests").json()["total"]
        assert batch.submitted == sets, batch
        return _Measured(sets, batch, requests)


def _one_run(sets: int) -> float:
    """Seconds of the run that the sensor asks for, from the start of its process to the end of it."""
    from dagster import DagsterInstance

    from lora_pipeline.trainings.start_batch import work_to_start

    with _house(sets) as house:
        work = work_to_start(Connections(house.settings))
        config = house.settings.home / "run.json"
        config.write_text(json.dumps({"ops": {"start_ready_trainings": {"config": {"lease": work.lease}}}}))
        seconds = _dagster_run(house, "start_trainings", "-c", str(config))
        paid = house.simulator.get("/paid").json()
        with DagsterInstance.from_config(house.environment["DAGSTER_HOME"]) as instance:
            assert (paid["count"], paid["paid_twice"], instance.get_runs_count()) == (sets, {}, 1), paid[
                "count"
            ]
        return seconds


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
            simulator.post("/settings", json={"latency_ms": LATENCY_MS}).raise_for_status()
            yield House(keys, settings, simulator)


def _dagster_run(house: House, job: str, *options: str) -> float:
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-m",
        "lora_pipeline.definitions",
        "-j",
        job,
    ]
    _output([*command, *options], house)
    return time.perf_counter() - started


def _output(command: list[str], house: House) -> str:
    done = subprocess.run(command, env=house.environment, cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return done.stdout


def _main() -> None:
    """One batch under its lease, in this process; prints Batch as JSON."""
    from lora_pipeline.trainings.start_batch import start_ready, work_to_start

    connections = Connections(Settings())
    work = work_to_start(connections)
    idle, started, computed = _memory("VmRSS"), time.perf_counter(), time.process_time()
    report = start_ready(connections, lease=work.lease, say=lambda _: None)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - computed
    print(json.dumps(Batch(seconds, cpu_seconds, _memory("VmHWM") - idle, len(report.done))))


if __name__ == "__main__":
    _main()
