"""Progress as clients poll it: cheap, shared, honest about estimates, never backwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.submission import submit_training
from lora_pipeline_tests.api.serving import key_for, with_key
from lora_pipeline_tests.api.steps import progress
from lora_pipeline_tests.fixtures.pipeline import add_packed_run
from lora_pipeline_tests.trainings.steps import RULES, set_run, state_of


@pytest.fixture
def run_id(connections: Connections) -> int:
    """A training of the user `42` that the provider has."""
    database, store, provider = connections.database, connections.store, connections.replicate
    found = add_packed_run(database, store, "42")
    submit_training(database, store, provider, found, RULES)
    return found


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 15 seconds"
        time.sleep(0.02)


def submitted_ago(connections: Connections, run_id: int, **ago: float) -> None:
    """As if it had been submitted then, and looked at just now."""
    now = datetime.now(UTC)
    set_run(connections.database, run_id, submitted_at=now - timedelta(**ago), last_polled_at=now)


def test_before_the_trainer_says_anything_progress_is_estimated_and_says_so(
    connections: Connections, run_id: int, anna: httpx.Client
) -> None:
    submitted_ago(connections, run_id, minutes=15)
    half = progress(anna, "42")
    assert half["estimated"] is True
    assert 40 <= half["progress"] <= 50
    assert half["secondsLeft"] == 900
    submitted_ago(connections, run_id, hours=20)
    assert progress(anna, "42")["progress"] < 99


def test_what_the_trainer_says_is_told_as_it_is_and_never_goes_back(
    connections: Connections, run_id: int, anna: httpx.Client
) -> None:
    submitted_ago(connections, run_id, minutes=15)
    shown = progress(anna, "42")["progress"]
    set_run(connections.database, run_id, state="running", progress=10, progress_estimated=False)
    behind = progress(anna, "42")
    assert (behind["progress"], behind["estimated"]) == (shown, True)
    set_run(connections.database, run_id, progress=77)
    ahead = progress(anna, "42")
    assert (ahead["status"], ahead["progress"], ahead["estimated"]) == ("training", 77, False)


def test_an_unchanged_answer_is_not_sent_again(
    connections: Connections, run_id: int, anna: httpx.Client
) -> None:
    set_run(connections.database, run_id, state="held", hold_reason="a person decides", last_polled_at=None)
    first = anna.get("/api/training/progress", params={"modelId": "42"})
    headers = {"If-None-Match": first.headers["etag"]}
    again = anna.get("/api/training/progress", params={"modelId": "42"}, headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    set_run(connections.database, run_id, hold_reason="something else")
    assert anna.get("/api/training/progress", params={"modelId": "42"}, headers=headers).status_code == 200


def test_many_clients_that_poll_at_once_ask_the_provider_once(
    connections: Connections, simulator: RunningSimulator, run_id: int, anyone: httpx.Client
) -> None:
    simulator.advance(300)
    simulator.control("requests/reset")
    key = key_for(connections, "43")
    others = [key_for(connections, "42", f"phone {number}") for number in range(4)]
    assert key

    def poll(number: int) -> str:
        with with_key(anyone, others[number % 4]) as client:
            return str(progress(client, "42")["status"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(poll, range(24))) <= {"starting", "training"}
    eventually(lambda: state_of(connections.database, run_id) == "running")
    assert simulator.requests().get("trainings.list", 0) == 1


def test_a_provider_that_hangs_holds_up_no_answer(
    connections: Connections, simulator: RunningSimulator, run_id: int, anna: httpx.Client
) -> None:
    simulator.fault("trainings.list", "delay", seconds=3.0, moment="before")
    began = time.monotonic()
    for _ in range(10):
        assert progress(anna, "42")["status"] == "starting"
    assert time.monotonic() - began < 2.5


WORDS = {
    "packed": "pending",
    "intent": "pending",
    "submitted": "starting",
    "running": "training",
    "succeeded": "training",
    "held": "training",
    "lost": "training",
    "finalised": "completed",
    "failed": "failed",
    "aborted": "failed",
    "canceled": "canceled",
}


def test_every_state_has_a_word_that_front_ends_know(
    connections: Connections, run_id: int, anna: httpx.Client
) -> None:
    for state, word in WORDS.items():
        set_run(connections.database, run_id, state=state, last_polled_at=datetime.now(UTC))
        assert progress(anna, "42")["status"] == word, state
