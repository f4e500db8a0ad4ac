"""The demo with real processes and the real daemon: killed half-way, started again, nothing paid twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from lora_pipeline.demo.shots import DEMO_MODELS
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.stack.ports import USUAL

pytestmark = [
    pytest.mark.deep,
    pytest.mark.daemon,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc"),
]


def reserve_ports(home: Path) -> None:
    """Ports of its own: another test's stack, started at the same moment, would choose the usual ones too."""
    home.mkdir()
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in USUAL]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        ports = dict(zip(USUAL, (probe.getsockname()[1] for probe in sockets), strict=True))
    (home / "ports.json").write_text(json.dumps(ports))


def start(home: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "lora_pipeline.cli.main", "demo", "--exit"],
            env={**os.environ, "LORA_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def processes_of(home: Path) -> list[int]:
    """Every process that was started for this home, however deep, and that has not ended."""
    mark = f"LORA_HOME={home}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def submitted(home: Path) -> int:
    """How many trainings the provider knows of, as the database says."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{home / 'lora.sqlite3'}?mode=ro", uri=True)) as database,
    ):
        query = "SELECT count(*) FROM training_runs WHERE training_id IS NOT NULL"
        return int(database.execute(query).fetchone()[0])
    return 0


def test_a_demo_that_is_killed_half_way_is_finished_by_the_next_and_pays_nothing_twice(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    reserve_ports(home)
    first = start(home, tmp_path / "first.log")
    deadline = time.monotonic() + 240
    while not submitted(home):
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "first.log").read_text()
        time.sleep(0.1)
    while left := processes_of(home):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        first.poll()
        time.sleep(0.1)

    second = start(home, tmp_path / "second.log")
    code = second.wait(420)
    said = (tmp_path / "second.log").read_text()

    assert code == 0, said
    for model in DEMO_MODELS:
        row = next(line for line in said.splitlines() if line.startswith(model.key) and "V1" in line)
        assert "verified SIMULATED" in row
    assert processes_of(home) == []
    assert not (home / "stack.json").exists()
    with RunningSimulator(SimulatorSettings(state=home / "simulator", speed=0)) as simulator:
        paid = simulator.paid()
    assert paid["count"] == len(DEMO_MODELS)
    assert paid["paid_twice"] == {}
