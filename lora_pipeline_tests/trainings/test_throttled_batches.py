"""A provider that throttles a batch holds it back, and costs no training its start."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline.trainings.throttling import Brake
from lora_pipeline_tests.fixtures.photographs import drop_photographs
from lora_pipeline_tests.fixtures.pipeline import run_row

MINUTE = timedelta(minutes=1)


def test_what_is_throttled_is_sent_by_the_same_batch_once_the_provider_takes_it(
    connections: Connections, simulator: RunningSimulator
) -> None:
    for key in ("user-1", "user-2"):
        drop_photographs(connections.settings.home / "inbox" / key, 5)
    simulator.fault("trainings.create", "answer", status=429, retry_after=1)
    report = start_ready(connections, lease=None)
    assert (sorted(report.done), report.failures) == (["user-1", "user-2"], ())
    paid = simulator.paid()
    assert (paid["count"], paid["paid_twice"]) == (2, {})


def test_a_wait_longer_than_the_lease_is_left_to_the_next_batch(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(connections.settings.home / "inbox" / "user-1", 5)
    simulator.fault("trainings.create", "answer", status=429, retry_after=3600)
    report = start_ready(connections, lease=None)
    (failure,) = report.failures
    assert "throttled" in failure.reason
    assert run_row(connections.database, 1).state == "packed"
    assert simulator.paid()["count"] == 0


def test_the_brake_waits_as_long_as_it_was_told_and_for_everybody() -> None:
    brake = Brake(longest=MINUTE, together=MINUTE)
    assert brake.wait()
    started = time.monotonic()
    brake.pull(0.0)
    assert brake.wait()
    assert time.monotonic() - started >= 1.0, "a provider that asks for no wait is not asked in a tight loop"


@pytest.mark.parametrize("waits", [[61.0], [30.0, 61.0]])
def test_the_brake_gives_up_on_a_wait_that_is_too_long(waits: list[float]) -> None:
    brake = Brake(longest=MINUTE, together=10 * MINUTE)
    for seconds in waits:
        brake.pull(seconds)
    assert not brake.wait()


def test_the_brake_gives_up_when_all_waits_together_are_too_long() -> None:
    brake = Brake(longest=10 * MINUTE, together=MINUTE)
    brake.pull(59.0)
    brake.pull(59.0)  # at the same moment: the same wait
    brake.pull(62.0)
    assert not brake.wait()
