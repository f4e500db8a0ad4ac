"""RunPod's webhooks: one at the end of a job, unsigned, three tries until it is answered with 200."""

from __future__ import annotations

import time

import httpx
import pytest

from lora_pipeline_tests.fixtures.runpod import RunPodBench
from lora_pipeline_tests.simulator.conftest import Receiver
from lora_pipeline_tests.simulator.runpod_calls import order, run, status


def run_with_webhook(runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver) -> str:
    return run(runpod_api, order(runpod) | {"webhook": receiver.url})


def test_the_body_is_the_status_answer_and_nothing_is_signed(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver
) -> None:
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.advance(600)
    assert receiver.got == [], "progress is not told"
    runpod.simulator.advance(1800)
    runpod.simulator.advance(100)

    ((headers, _),) = receiver.got
    assert receiver.bodies == [status(runpod_api, job)]
    assert [name for name in headers if "signature" in name or "webhook" in name] == []
    assert headers["lora-pipeline-simulator"] == "true"


@pytest.mark.parametrize("outcome", ["FAILED", "CANCELLED", "TIMED_OUT"])
def test_other_ends_are_told_too(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver, outcome: str
) -> None:
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.end_job(job, outcome)
    assert [body["status"] for body in receiver.bodies] == [outcome]


def test_each_attempt_is_told(runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver) -> None:
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.end_job(job, "FAILED", error="broken")
    runpod_api.post(f"/v2/ep1abcdefg/retry/{job}")
    runpod.simulator.end_job(job)
    assert [body["status"] for body in receiver.bodies] == ["FAILED", "COMPLETED"]


def test_three_tries_are_made_and_only_200_ends_them(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver
) -> None:
    runpod.simulator.settings(runpod_webhook_retry_s=(0.1, 0.1))
    receiver.statuses = [500, 204, 302, 200]
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.end_job(job)
    receiver.wait_for(3)
    assert {body["id"] for body in receiver.bodies} == {job}
    deadline = time.monotonic() + 5
    while runpod.simulator.read("webhooks")["waiting"] and time.monotonic() < deadline:
        time.sleep(0.02)
    deliveries = runpod.simulator.read("webhooks")["deliveries"]
    assert [one["outcome"] for one in deliveries] == ["302", "204", "500"], "and no fourth"


@pytest.mark.parametrize(("kind", "count"), [("lost", 0), ("doubled", 2)])
def test_a_webhook_can_be_lost_or_doubled(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver, kind: str, count: int
) -> None:
    runpod.simulator.fault("runpod.webhooks", kind)
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.end_job(job)
    assert [body["status"] for body in receiver.bodies] == ["COMPLETED"] * count


def test_a_webhook_can_be_late(runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver) -> None:
    runpod.simulator.fault("runpod.webhooks", "late", seconds=0.3)
    runpod.simulator.end_job(run_with_webhook(runpod, runpod_api, receiver))
    assert receiver.got == []
    receiver.wait_for(1)


def test_whoever_knows_the_address_can_tell_anything(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver
) -> None:
    runpod.simulator.fault("runpod.webhooks", "forged")
    job = run_with_webhook(runpod, runpod_api, receiver)
    runpod.simulator.end_job(job, "FAILED", error="broken")
    forged, real = receiver.bodies
    assert (forged["id"], forged["status"], real["status"]) == (job, "COMPLETED", "FAILED")
    assert "mallory" in forged["output"]["loraUrl"]


def test_a_job_that_its_ttl_ended_tells_nobody(
    runpod: RunPodBench, runpod_api: httpx.Client, receiver: Receiver
) -> None:
    body = order(runpod) | {
        "webhook": receiver.url,
        "policy": {"executionTimeout": 10_800_000, "ttl": 60_000},
    }
    run(runpod_api, body)
    runpod.simulator.advance(4000)
    assert receiver.got == []
