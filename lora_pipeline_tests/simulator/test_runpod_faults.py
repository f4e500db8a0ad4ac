"""What goes wrong with RunPod jobs, asked for through the control interface: on the wire, at the worker, for good."""

from __future__ import annotations

import httpx
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load

from lora_pipeline.providers.runpod import weights_key
from lora_pipeline.simulator.runpod_jobs import UPLOADS
from lora_pipeline_tests.fixtures.runpod import DESTINATION, ENDPOINT, RUNPOD_KEY, RunPodBench
from lora_pipeline_tests.simulator.runpod_calls import RUN, has_object, order, run, status


@pytest.mark.parametrize(("moment", "paid"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "answer", "status": 502, "body": "html"}])
def test_a_creation_without_an_answer_may_or_may_not_have_paid(
    runpod: RunPodBench, runpod_api: httpx.Client, moment: str, paid: int, fault: dict[str, object]
) -> None:
    runpod.simulator.fault("runpod.run", moment=moment, **fault)  # type: ignore[arg-type]
    body = order(runpod)
    if fault["kind"] == "drop":
        with pytest.raises(httpx.TransportError):
            runpod_api.post(RUN, json=body)
    else:
        assert runpod_api.post(RUN, json=body).status_code == 502
    assert runpod.simulator.paid_jobs()["by_token"] == ({"t1": 1} if paid else {})


def test_a_slow_answer_outlasts_the_client_and_the_job_exists(runpod: RunPodBench) -> None:
    body = order(runpod)
    runpod.simulator.fault("runpod.run", "delay", moment="after", seconds=0.4)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            runpod.simulator.url + RUN,
            json=body,
            headers={"Authorization": f"Bearer {RUNPOD_KEY}"},
            timeout=0.1,
        )
    assert runpod.paid("t1") == 1


@pytest.mark.parametrize("status_code", [400, 401, 402, 404, 429, 500, 503])
def test_an_error_answer_has_a_plain_body(
    runpod: RunPodBench, runpod_api: httpx.Client, status_code: int
) -> None:
    runpod.simulator.fault("runpod.status", "answer", status=status_code, retry_after=7)
    answer = runpod_api.get(f"/v2/{ENDPOINT}/status/any")
    assert (answer.status_code, list(answer.json())) == (status_code, ["error"])
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["lora-pipeline-simulator"] == "true"


@pytest.mark.parametrize(
    ("quirk", "output"),
    [
        ("none", None),
        ("not_ok", {"ok": False, "job_id": "t1"}),
        ("error", {"status": "error", "job_id": "t1", "error": "CUDA error: out of memory"}),
    ],
)
def test_a_completed_job_can_say_nothing_or_that_it_failed(
    runpod: RunPodBench, runpod_api: httpx.Client, quirk: str, output: object
) -> None:
    runpod.quirk(output=quirk, upload="skipped")
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    found = status(runpod_api, job)
    assert (found["status"], found.get("output")) == ("COMPLETED", output)
    assert not has_object(runpod)


def test_a_completed_job_without_output_can_have_left_its_object(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    runpod.quirk(output="none")
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    assert "output" not in status(runpod_api, job)
    assert has_object(runpod)


def test_a_job_can_fail_after_its_upload(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.quirk(error="webhook of the worker refused", upload="despite_failure")
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(2400)
    assert status(runpod_api, job)["status"] == "FAILED"
    assert has_object(runpod)


@pytest.mark.parametrize("damage", [kind for kind in UPLOADS if kind not in ("skipped", "despite_failure")])
def test_an_object_can_be_damaged(runpod: RunPodBench, runpod_api: httpx.Client, damage: str) -> None:
    runpod.quirk(upload=damage)
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    assert status(runpod_api, job)["status"] == "COMPLETED"
    if damage == "not_finite":
        tensors = load(runpod.weights("t1"))
        assert any((tensor != tensor).any() for tensor in tensors.values())
        return
    with pytest.raises(SafetensorError):
        load(runpod.weights("t1"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("none", set()), ("other_token", {"runpod_job_id", "token"}), ("hyphens", {"runpod-job-id", "token"})],
)
def test_what_stands_beside_the_object_can_differ(
    runpod: RunPodBench, runpod_api: httpx.Client, kind: str, names: set[str]
) -> None:
    runpod.quirk(metadata=kind)
    runpod.simulator.end_job(run(runpod_api, order(runpod)))
    metadata = runpod.store.head(weights_key("t1", DESTINATION)).metadata
    assert set(metadata) == names
    assert metadata.get("token") == {"other_token": "another-run", "hyphens": "t1"}.get(kind)


def test_a_result_can_be_gone_at_once(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.quirk(retained_s=0)
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    assert runpod_api.get(f"/v2/{ENDPOINT}/status/{job}").status_code == 404
    assert has_object(runpod)


def test_a_job_can_vanish_while_its_worker_goes_on(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.quirk(vanishes_after_s=300)
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(299)
    assert status(runpod_api, job)["status"] == "IN_PROGRESS"
    runpod.simulator.advance(2)
    for call in (
        runpod_api.get(f"/v2/{ENDPOINT}/status/{job}"),
        runpod_api.post(f"/v2/{ENDPOINT}/cancel/{job}"),
    ):
        assert call.status_code == 404
    runpod.simulator.advance(2400)
    assert has_object(runpod)


@pytest.mark.parametrize(
    ("place", "seen", "end"), [("queue", "IN_QUEUE", None), ("progress", "IN_PROGRESS", "TIMED_OUT")]
)
def test_a_stuck_job_ends_at_its_policy_s_times_only(
    runpod: RunPodBench, runpod_api: httpx.Client, place: str, seen: str, end: str | None
) -> None:
    runpod.quirk(stuck_in=place)
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(10_000)
    assert status(runpod_api, job)["status"] == seen
    runpod.simulator.advance(1_000)
    assert status(runpod_api, job)["status"] == (end or seen)


def test_a_cancel_can_be_refused_or_ignored(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    job = run(runpod_api, order(runpod))
    cancel = f"/v2/{ENDPOINT}/cancel/{job}"
    runpod.simulator.control(f"runpod/jobs/{job}/quirks", cancel="refused")
    assert runpod_api.post(cancel).status_code == 500
    runpod.simulator.control(f"runpod/jobs/{job}/quirks", cancel="ignored")
    assert runpod_api.post(cancel).json()["status"] == "IN_QUEUE"


def test_a_status_can_be_a_word_that_nobody_knows(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.quirk(status="HIBERNATED")
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    assert status(runpod_api, job)["status"] == "HIBERNATED"


@pytest.mark.parametrize(
    "fault",
    [
        {"place": "runpod.runs", "kind": "drop"},
        {"place": "runpod.status", "kind": "quirk"},
        {"place": "runpod.run", "kind": "quirk", "quirk": {"output": "nonsense"}},
        {"place": "runpod.run", "kind": "quirk", "quirk": {"substituted_version": "x"}},
        {"place": "runpod.webhooks", "kind": "drop"},
        {"place": "runpod.webhooks", "kind": "stale"},
    ],
)
def test_a_fault_that_cannot_happen_is_refused(runpod: RunPodBench, fault: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="refused"):
        runpod.simulator.control("faults", **fault)
