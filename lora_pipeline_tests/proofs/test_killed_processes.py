"""Real processes and real SIGKILLs, over real HTTP, on a SQLite file and on PostgreSQL: the simulator counts what was paid."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ModelVersion, OutboxEvent, TrainingRun
from lora_pipeline.objects import open_store
from lora_pipeline.trainings.lifecycle import TERMINAL
from lora_pipeline_tests.fixtures.pipeline import add_packed_run
from lora_pipeline_tests.proofs import worker

RUNS = 60
KILLS = 40
TOGETHER = 2
LONGEST_LIFE = 0.4
PATIENCE = 90.0


@pytest.fixture(scope="module")
def nursery() -> ForkServerContext:
    """Processes of their own that start in milliseconds: what they import is imported once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([worker.__name__])
    return context


@pytest.fixture
def provider_url(nursery: ForkServerContext) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = nursery.Process(target=worker.simulate, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while not _answers(url):
        assert time.monotonic() < deadline, "the simulator did not start within 60 s"
        time.sleep(0.05)
    yield url
    process.kill()
    process.join()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/simulator").is_success
    except httpx.TransportError:
        return False


@pytest.mark.deep
def test_killed_processes_pay_nothing_twice_and_forget_nothing(
    nursery: ForkServerContext, provider_url: str, database_address: str, database: Database, tmp_path: Path
) -> None:
    seed = int(os.environ.get("PROOF_SEED") or random.randrange(1_000_000))
    print(f"PROOF_SEED={seed}")
    chance = random.Random(seed)
    store_root = str(tmp_path / "objects")
    store = open_store(store_root)
    runs = [
        add_packed_run(database, store, f"user-{number}", parameters={"steps": 60}) for number in range(RUNS)
    ]

    def start() -> ForkServerProcess:
        given = (database_address, store_root, provider_url, chance.randrange(1_000_000))
        process = nursery.Process(target=worker.work, args=given, daemon=True)
        process.start()
        return process

    workers = [start() for _ in range(TOGETHER)]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        at = chance.randrange(TOGETHER)
        workers[at].kill()
        workers[at].join()
        workers[at] = start()
    kept = at_rest(database, time.monotonic() + PATIENCE)
    for process in workers:
        process.kill()
        process.join()
    assert kept, f"not at rest after {PATIENCE:.0f} s: {Counter(states(database))}"
    found = Counter(states(database))
    print(f"{KILLS} kills of {TOGETHER} processes at work: {dict(found)}, {paid(provider_url)['count']} paid")
    judge(database, runs, paid(provider_url)["trainings"])


def judge(database: Database, runs: list[int], trainings: list[dict[str, Any]]) -> None:
    """Paid twice = 0, forgotten = 0, and what ended is served."""
    by_destination = Counter(training["destination"] for training in trainings)
    twice = {name: count for name, count in by_destination.items() if count > 1}
    assert not twice
    with database.read() as session:
        rows = session.query(TrainingRun).order_by(TrainingRun.id).all()
        versions = Counter(version.training_run_id for version in session.query(ModelVersion))
        open_ones = Counter(one.model_id for one in session.query(Activation).filter_by(active_to=None))
        events = {event.event_id for event in session.query(OutboxEvent)}
    assert [row.id for row in rows] == runs
    known = {row.training_id for row in rows}
    forgotten = [training["id"] for training in trainings if training["id"] not in known]
    assert not forgotten
    for row in rows:
        assert row.state in ("finalised", "held"), (row.id, row.state, row.error)
        if row.state == "held":
            assert row.destination not in by_destination, f"run {row.id} is held, and it is paid"
            assert row.hold_reason
            continue
        assert versions[row.id] == 1
        assert open_ones[row.model_id] == 1
        assert {f"training:{row.id}:submitted", f"training:{row.id}:succeeded", f"lora:{row.id}"} <= events


def test_two_processes_that_submit_at_once_start_nothing_twice(
    nursery: ForkServerContext, provider_url: str, database_address: str, database: Database, tmp_path: Path
) -> None:
    store_root = str(tmp_path / "objects")
    store = open_store(store_root)
    for number in range(10):
        add_packed_run(database, store, f"user-{number}")
    start = nursery.Barrier(2)
    given = (database_address, store_root, provider_url, start)
    processes = [nursery.Process(target=worker.submit_everything, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    destinations = [training["destination"] for training in paid(provider_url)["trainings"]]
    assert sorted(destinations) == sorted(f"acme/user-{number}-selfie-lora" for number in range(10))
    assert set(states(database)) == {"submitted"}


def at_rest(database: Database, deadline: float) -> bool:
    """Whether every run has ended or is held, before the deadline."""
    while time.monotonic() < deadline:
        if all(state in {*TERMINAL, "held"} for state in states(database)):
            # A held one is still looked for: what the provider knows of it would be found by now.
            time.sleep(1.0)
            return True
        time.sleep(0.2)
    return False


def states(database: Database) -> list[str]:
    with database.read() as session:
        return [state for (state,) in session.query(TrainingRun.state)]


def paid(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/simulator/paid").raise_for_status().json()
    return found
