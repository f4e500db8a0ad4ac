"""A thousand open trainings completed by a real Dagster daemon that is killed on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import func, select

from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion, OutboxEvent, TrainingRun
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline_tests.bench.status_tick_row import add_open_runs

pytestmark = [pytest.mark.deep, pytest.mark.daemon, pytest.mark.timeout(900)]

TRAININGS = 1_000
PROJECT = Path(__file__).parents[2]


@contextmanager
def _dagster(home: Path, simulator_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster dev` in its own process group, ended (or already killed) at the end."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "DAGSTER_HOME": str(folder),
        "LORA_HOME": str(home),
        "LORA_POLL_INTERVAL": "3",
        "LORA_LEASE": "20",
        "REPLICATE_API_TOKEN": "r8_test",
        "REPLICATE_BASE_URL": simulator_url,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)],
            cwd=PROJECT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(what: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.5)


def _count(database: Database, *where: object) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(TrainingRun).where(*where)) or 0  # type: ignore[arg-type]


def _owed(database: Database) -> int:
    with database.read() as session:
        question = select(func.count()).where(OutboxEvent.acknowledged_at.is_(None))
        return session.scalar(question.select_from(OutboxEvent)) or 0


def test_every_training_is_finished_and_no_event_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "dagster.log"
    home.mkdir()
    database = Database(f"sqlite:///{home / 'lora.sqlite3'}")
    upgrade(database)
    with RunningSimulator(SimulatorSettings.for_tests(lora_width=16, lora_blocks=1)) as simulator:
        seeded = simulator.control("trainings", count=TRAININGS)["trainings"]
        add_open_runs(database, seeded)
        simulator.advance(7200)
        with _dagster(home, simulator.url, log):
            # Killed while batches work and events are on their way.
            _wait(lambda: _count(database, TrainingRun.state == "finalised") > 50, 180, log)
        with _dagster(home, simulator.url, log):
            _wait(lambda: _count(database, TrainingRun.state == "finalised") == TRAININGS, 400, log)
            _wait(lambda: _owed(database) == 0, 200, log)
        assert simulator.paid()["count"] == TRAININGS
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == TRAININGS
    os.environ.pop("DAGSTER_HOME", None)
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        materialised = instance.get_materialized_partitions(dg.AssetKey("trained_lora"))
    assert len(materialised) == TRAININGS, "an event was lost between the outbox and Dagster"
