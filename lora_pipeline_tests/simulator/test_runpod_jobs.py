"""A RunPod job over the wire: its states, its times, its end, and what is left when RunPod has forgotten it."""

from __future__ import annotations

import re
import struct
from typing import Any

import httpx
import pytest
from safetensors.numpy import load

from lora_pipeline.identity import ObjectAddress, parse_object_url
from lora_pipeline.providers.runpod import weights_key
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline_tests.fixtures.runpod import DESTINATION, ENDPOINT, RUNPOD_KEY, RunPodBench
from lora_pipeline_tests.simulator.runpod_calls import POLICY, RUN, has_object, order, run, status


def test_a_job_goes_from_the_queue_to_its_object(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    created = runpod_api.post(RUN, json=order(runpod))
    job = created.json()["id"]
    assert created.json() == {"id": job, "status": "IN_QUEUE"}
    assert created.headers["lora-pipeline-simulator"] == "true"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-(u1|e1|e2)", job)
    assert status(runpod_api, job) == {"id": job, "status": "IN_QUEUE"}

    runpod.simulator.advance(600)
    running = status(runpod_api, job)
    assert (running["status"], running["output"]["job_id"]) == ("IN_PROGRESS", "t1")
    assert 0 < running["output"]["step"] < 2000
    assert running["output"]["log"].startswith("steps:  ")
    assert not has_object(runpod)

    runpod.simulator.advance(1800)
    done = status(runpod_api, job)
    assert done["status"] == "COMPLETED"
    assert runpod_api.post(f"/v2/{ENDPOINT}/status/{job}").json() == done
    assert type(done["executionTime"]) is type(done["delayTime"]) is int
    assert 0.64 < done["executionTime"] / 1000 / 2000 < 1.14
    assert done["output"] == {
        "job_id": "t1",
        "loraName": DESTINATION,
        "loraUrl": done["output"]["loraUrl"],
        "status": "success",
        "training_type": "style",
        "model_info": {
            "download_url": done["output"]["loraUrl"],
            "size_bytes": len(runpod.weights("t1")),
        },
    }


def test_the_object_is_a_valid_lora_and_says_whose_it_is(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(2400)

    content = runpod.weights("t1")
    assert runpod.store.head(weights_key("t1", DESTINATION)).metadata == {"runpod_job_id": job, "token": "t1"}
    tensors = load(content)
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_down" in name} == {8}
    assert {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} == {4.0}
    header = content[8 : 8 + struct.unpack("<Q", content[:8])[0]]
    assert b'"simulated":"true"' in header
    assert b'"ss_network_dim":"8"' in header


@pytest.mark.parametrize("spelling", ["accelerate", "regional"])
def test_the_address_of_the_object_is_spelled_as_workers_do(
    runpod: RunPodBench, runpod_api: httpx.Client, spelling: str
) -> None:
    runpod.simulator.settings(worker_url_spelling=spelling)
    body = order(runpod)
    job = run(runpod_api, body)
    runpod.simulator.advance(2400)

    address = parse_object_url(status(runpod_api, job)["output"]["loraUrl"])

    assert isinstance(address, ObjectAddress)
    assert (address.ref.bucket, address.ref.key) == (body["input"]["s3_bucket"], body["input"]["s3_key"])


def test_ten_minutes_are_all_that_a_job_without_a_policy_gets(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    job = run(runpod_api, order(runpod) | {"policy": {}})
    runpod.simulator.advance(700)

    ended = status(runpod_api, job)

    assert (ended["status"], ended["executionTime"], "output" in ended) == ("TIMED_OUT", 600_000, False)
    assert not has_object(runpod)


def test_the_ttl_ends_a_job_in_mid_run_and_nobody_knows_it_any_more(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    job = run(runpod_api, order(runpod) | {"policy": POLICY | {"ttl": 900_000}})
    runpod.simulator.advance(890)
    assert status(runpod_api, job)["status"] == "IN_PROGRESS"
    runpod.simulator.advance(20)
    assert runpod_api.get(f"/v2/{ENDPOINT}/status/{job}").status_code == 404
    runpod.simulator.advance(3000)
    assert not has_object(runpod), "it was killed, not only forgotten"


def test_a_day_is_what_a_job_without_a_ttl_has(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.quirk(stuck_in="queue")
    job = run(runpod_api, order(runpod) | {"policy": {}})
    runpod.simulator.advance(86_390)
    assert status(runpod_api, job)["status"] == "IN_QUEUE"
    runpod.simulator.advance(20)
    assert runpod_api.get(f"/v2/{ENDPOINT}/status/{job}").status_code == 404


def test_a_result_is_kept_for_half_an_hour_and_the_object_for_good(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    runpod.simulator.advance(1790)
    assert status(runpod_api, job)["status"] == "COMPLETED"
    runpod.simulator.advance(20)
    assert runpod_api.get(f"/v2/{ENDPOINT}/status/{job}").json() == {"error": "job not found"}
    assert has_object(runpod)


def test_a_retry_is_a_new_paid_attempt_under_the_same_id(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    runpod.quirk(error="CUDA out of memory")
    job = run(runpod_api, order(runpod))
    retry = f"/v2/{ENDPOINT}/retry/{job}"
    assert runpod_api.post(retry).status_code == 400, "it has not failed"
    runpod.simulator.advance(2400)
    assert status(runpod_api, job)["status"] == "FAILED"

    assert runpod_api.post(retry).json() == {"id": job, "status": "IN_QUEUE"}
    assert status(runpod_api, job) == {"id": job, "status": "IN_QUEUE"}, "error and output are gone"
    assert runpod.simulator.paid_jobs()["paid_twice"] == {"t1": 2}
    assert runpod_api.get(f"/v2/{ENDPOINT}/health").json()["jobs"]["retried"] == 1
    runpod.simulator.advance(2400)
    assert status(runpod_api, job)["status"] == "COMPLETED"
    assert has_object(runpod)
    assert runpod_api.post(retry).status_code == 400, "it has succeeded"


def test_a_job_that_timed_out_can_be_retried(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    job = run(runpod_api, order(runpod) | {"policy": {}})
    runpod.simulator.advance(700)
    assert runpod_api.post(f"/v2/{ENDPOINT}/retry/{job}").json()["status"] == "IN_QUEUE"


@pytest.mark.parametrize("after", [0, 600])
def test_a_cancelled_job_leaves_nothing(runpod: RunPodBench, runpod_api: httpx.Client, after: int) -> None:
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(after)
    assert runpod_api.post(f"/v2/{ENDPOINT}/cancel/{job}").json() == {"id": job, "status": "CANCELLED"}
    runpod.simulator.advance(1000)
    found = status(runpod_api, job)
    assert (found["status"], "output" in found, "delayTime" in found) == ("CANCELLED", False, after > 0)
    assert not has_object(runpod)


def test_a_job_that_has_ended_stays_as_it_ended(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    job = run(runpod_api, order(runpod))
    runpod.simulator.end_job(job)
    assert runpod_api.post(f"/v2/{ENDPOINT}/cancel/{job}").json()["status"] == "COMPLETED"


def test_an_exception_in_the_handler_is_json_inside_a_text(
    runpod: RunPodBench, runpod_api: httpx.Client
) -> None:
    runpod.quirk(error="no kernel image is available", error_type="torch.cuda.CudaError")
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(2400)

    failed = status(runpod_api, job)

    assert failed["status"] == "FAILED"
    assert isinstance(failed["error"], str)
    inner = httpx.Response(200, text=failed["error"]).json()
    assert inner["error_type"] == "<class 'torch.cuda.CudaError'>"
    assert inner["error_message"] == "no kernel image is available"
    assert "Traceback" in inner["error_traceback"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dataset_url": "http://127.0.0.1:9/nothing.zip"}, "Failed to download dataset_url: ConnectError"),
        ({"dataset_url": "data:application/zip;base64,AAAA"}, "Unable to unzip dataset_url"),
        ({"s3_key": None}, "the input lacks s3_key"),
        ({"s3_bucket": "no-such-bucket-anywhere"}, "NoSuchBucket"),
    ],
)
def test_a_worker_that_cannot_do_its_work_fails(
    runpod: RunPodBench, runpod_api: httpx.Client, wrong: dict[str, Any], words: str
) -> None:
    job = run(runpod_api, order(runpod, **wrong))
    runpod.simulator.advance(2400 if "s3_bucket" in wrong else 100)

    failed = status(runpod_api, job)

    assert failed["status"] == "FAILED"
    assert words in failed["error"]


def test_health_counts_the_jobs_of_its_endpoint(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    jobs = [run(runpod_api, order(runpod, f"t{number}")) for number in range(4)]
    runpod.simulator.end_job(jobs[0])
    runpod.simulator.end_job(jobs[1], "FAILED", error="broken")
    runpod.simulator.advance(20)
    last = run(runpod_api, order(runpod, "t4"))

    assert runpod_api.get(f"/v2/{ENDPOINT}/health").json() == {
        "jobs": {"completed": 1, "failed": 1, "inProgress": 2, "inQueue": 1, "retried": 0},
        "workers": {"idle": 0, "running": 2},
    }
    assert runpod_api.get("/v2/another/health").json()["jobs"]["inQueue"] == 0
    assert runpod_api.get(f"/v2/another/status/{last}").status_code == 404


def test_the_key_and_the_endpoint_are_checked(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.simulator.settings(runpod_api_key=RUNPOD_KEY, runpod_endpoint=ENDPOINT)
    for header in ("Bearer rpa_another", f"Token {RUNPOD_KEY}", RUNPOD_KEY):
        assert runpod_api.post(RUN, json={}, headers={"Authorization": header}).status_code == 401
    assert runpod_api.post("/v2/another/run", json=order(runpod)).status_code == 404
    assert runpod_api.get("/v2/another/health").status_code == 404
    assert runpod_api.get(f"/v2/{ENDPOINT}/nonsense").json() == {"error": "Not Found"}
    assert runpod.simulator.paid_jobs()["count"] == 0
    run(runpod_api, order(runpod))
    assert RUNPOD_KEY not in str(runpod.simulator.control("settings"))
    assert runpod.aws["AWS_SECRET_ACCESS_KEY"] not in str(runpod.simulator.control("settings"))


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"input": []}',
        b'{"input": {}, "webhook": "ftp://x"}',
        b'{"input": {}, "policy": []}',
        b'{"input": {}, "policy": {"executionTimeout": 4999}}',
        b'{"input": {}, "policy": {"ttl": 9999}}',
        b'{"input": {}, "policy": {"ttl": 604800001}}',
        b'{"input": {}, "policy": {"ttl": "1 h"}}',
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    runpod: RunPodBench, runpod_api: httpx.Client, body: bytes
) -> None:
    answer = runpod_api.post(RUN, content=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert runpod.simulator.paid_jobs()["count"] == 0


def test_an_empty_account_pays_nothing(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.simulator.settings(out_of_credit=True)
    assert runpod_api.post(RUN, json=order(runpod)).status_code == 402
    assert runpod.simulator.paid_jobs()["count"] == 0


def test_each_kind_of_request_has_a_limit_of_its_own(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    job = run(runpod_api, order(runpod))
    runpod.simulator.settings(runpod_run_limit=1, runpod_status_limit=3, runpod_cancel_limit=2)
    calls = {"run": 1, "status": 3, "cancel": 2}
    for name, allowed in calls.items():
        path = RUN if name == "run" else f"/v2/{ENDPOINT}/{name}/{job}"
        answers = [runpod_api.post(path, json=order(runpod, "t2")) for _ in range(allowed + 1)]
        assert [answer.status_code for answer in answers] == [200] * allowed + [429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 10
    assert runpod.simulator.paid_jobs()["count"] == 2


def test_the_documented_times_and_limits_are_the_defaults() -> None:
    settings = SimulatorSettings()
    assert (settings.runpod_run_limit, settings.runpod_status_limit, settings.runpod_cancel_limit) == (
        1000,
        2000,
        100,
    )
    assert (settings.runpod_execution_timeout_s, settings.runpod_ttl_s) == (600, 86_400)
    assert settings.runpod_retention_s == 1800
    assert settings.runpod_webhook_retry_s == (10, 10)


def test_what_is_only_inferred_can_be_set(runpod: RunPodBench, runpod_api: httpx.Client) -> None:
    runpod.simulator.settings(
        runpod_id_suffix="-e2",
        runpod_echo_input=True,
        runpod_running_word="RUNNING",
        runpod_refused_retry_status=409,
    )
    job = run(runpod_api, order(runpod))
    runpod.simulator.advance(100)
    found = status(runpod_api, job)
    assert job.endswith("-e2")
    assert (found["input"]["job_id"], found["status"]) == ("t1", "RUNNING")
    assert runpod_api.post(f"/v2/{ENDPOINT}/retry/{job}").status_code == 409
