"""Starting a paid job at RunPod: sent once, with everything the worker needs, and every way it can end told apart."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.objects import ObjectStore, open_store
from lora_pipeline.providers.protocol import (
    InsufficientCredit,
    JobState,
    LeavesWeightsInBucket,
    ProviderUnavailable,
    Refused,
    Throttled,
    TrainingProvider,
    TrainingRequest,
    Unauthenticated,
    UnknownOutcome,
)
from lora_pipeline.providers.runpod import RunPodProvider, weights_key
from lora_pipeline_tests.fixtures.runpod import DESTINATION, ENDPOINT, RUNPOD_KEY, RunPodBench, a_provider
from lora_pipeline_tests.providers.scripted import HTML, Reply, ScriptedServer, json_reply

JOB = "60902e6c-08a1-426e-9cb9-9eaec90f5e2b-u1"
DATASET = "https://store.example/submissions/3f2a/9c.zip?X-Amz-Signature=deadbeef"
S3_ENV = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-west-1"}


def a_store() -> ObjectStore:
    """A bucket that nothing is asked of."""
    return open_store("s3://user-files/lora", env=S3_ENV)


def wanted(token: str = "token-1", webhook: str | None = None, **inputs: object) -> TrainingRequest:
    given = {"input_images": DATASET, "class_tokens": "style1", "max_train_steps": 2000, **inputs}
    return TrainingRequest(f"runpod/{ENDPOINT}", DESTINATION, given, webhook, token)


def test_it_is_a_training_provider_that_leaves_weights_in_a_bucket(runpod: RunPodBench) -> None:
    typed: TrainingProvider = runpod.provider
    assert isinstance(typed, LeavesWeightsInBucket)
    assert (typed.name, typed.owner()) == ("runpod", ENDPOINT)


def test_the_request_says_all_that_the_worker_needs_and_always_a_policy() -> None:
    hook = "https://lora.example/webhooks/runpod/f00f00"
    with (
        ScriptedServer(json_reply({"id": JOB, "status": "IN_QUEUE"})) as server,
        RunPodProvider(
            f"{server.url}/v2/",
            ENDPOINT,
            f"{RUNPOD_KEY}\n",
            a_store,
            timeout=2,
            execution_timeout=timedelta(hours=3),
            ttl=timedelta(hours=24),
        ) as provider,
    ):
        job = provider.create_training(wanted(webhook=hook, network_dim=16, training_type="style"))
        provider.create_training(wanted())

    assert (job.id, job.state, job.provider_status) == (JOB, JobState.QUEUED, "IN_QUEUE")
    first, second = server.received
    assert (first.method, first.path) == ("POST", f"/v2/{ENDPOINT}/run")
    assert first.headers["authorization"] == f"Bearer {RUNPOD_KEY}"
    assert first.json() == {
        "input": {
            "job_id": "token-1",
            "dataset_url": DATASET,
            "model_name": DESTINATION,
            "s3_bucket": "user-files",
            "s3_key": f"lora/trained/token-1/{DESTINATION}.safetensors",
            "class_tokens": "style1",
            "max_train_steps": 2000,
            "network_dim": 16,
            "training_type": "style",
        },
        "policy": {"executionTimeout": 10_800_000, "ttl": 86_400_000},
        "webhook": hook,
    }
    assert set(second.json()) == {"input", "policy"}, "no webhook where there is none"
    assert second.json()["policy"] == first.json()["policy"]


def test_a_created_job_is_paid_once_and_may_run_longer_than_ten_minutes(runpod: RunPodBench) -> None:
    job = runpod.provider.create_training(runpod.request("longer"))
    runpod.simulator.advance(1200)
    assert runpod.provider.get_training(job.id).state is JobState.RUNNING
    (row,) = [one for one in runpod.simulator.paid_jobs()["jobs"] if one["token"] == "longer"]
    assert (row["id"], row["execution_timeout_s"], row["ttl_s"]) == (job.id, 10_800, 86_400)


def test_a_refused_connection_surely_started_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with (
        a_provider(f"http://127.0.0.1:{port}", a_store(), timeout=2) as provider,
        pytest.raises(ProviderUnavailable, match="nothing was sent") as caught,
    ):
        provider.create_training(wanted())
    assert not isinstance(caught.value, UnknownOutcome)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "hang"},
        {"kind": "answer", "status": 500},
        {"kind": "answer", "status": 502, "body": "html"},
        {"kind": "answer", "status": 503, "retry_after": 0},
        {"kind": "answer", "status": 408, "body": "empty"},
        {"kind": "answer", "status": 307, "location": "/v2/elsewhere/run"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_whatever_is_no_answer_has_an_unknown_outcome_and_is_not_sent_again(
    runpod: RunPodBench, fault: dict[str, object], moment: str
) -> None:
    token = f"unknown-{moment}-{'-'.join(str(value) for value in fault.values() if '/' not in str(value))}"
    request = runpod.request(token)
    runpod.simulator.fault("runpod.run", moment=moment, **fault)  # type: ignore[arg-type]

    with (
        a_provider(runpod.simulator.url, runpod.store, timeout=0.3) as provider,
        pytest.raises(UnknownOutcome),
    ):
        provider.create_training(request)

    assert runpod.simulator.requests()["runpod.run"] == 1
    assert runpod.paid(token) == (1 if moment == "after" else 0)


def test_an_answer_that_breaks_off_has_an_unknown_outcome(runpod: RunPodBench) -> None:
    request = runpod.request("broken-off")
    runpod.simulator.fault("runpod.run", "cut_body")
    with pytest.raises(UnknownOutcome):
        runpod.provider.create_training(request)
    assert runpod.paid("broken-off") == 1


@pytest.mark.parametrize(
    "reply",
    [HTML, Reply(200, b"[]"), Reply(200, b""), json_reply({"status": "IN_QUEUE"}), json_reply({"id": " "})],
)
def test_a_success_that_names_no_job_has_an_unknown_outcome(reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(UnknownOutcome, match="names no id"),
    ):
        provider.create_training(wanted())
    assert len(server.received) == 1


@pytest.mark.parametrize("strange", [{}, {"status": None}, {"status": 7}, {"status": "PENDING_VERSION"}])
def test_the_id_of_a_paid_job_survives_any_answer(strange: dict[str, object]) -> None:
    with (
        ScriptedServer(json_reply({"id": JOB, **strange})) as server,
        a_provider(server.url, a_store()) as provider,
    ):
        job = provider.create_training(wanted())
    assert (job.id, job.state) == (JOB, JobState.UNKNOWN)


def test_throttling_says_how_long_to_wait_and_starts_nothing(runpod: RunPodBench) -> None:
    request = runpod.request("throttled")
    runpod.simulator.fault("runpod.run", "answer", status=429, retry_after=7)
    with pytest.raises(Throttled) as caught:
        runpod.provider.create_training(request)
    assert caught.value.retry_after == 7
    assert runpod.paid("throttled") == 0
    assert runpod.simulator.requests()["runpod.run"] == 1


def test_a_wrong_key_is_told_with_the_remedy(runpod: RunPodBench) -> None:
    runpod.simulator.settings(runpod_api_key="rpa_of_somebody_else")
    try:
        with pytest.raises(Unauthenticated, match="RUNPOD_API_KEY"):
            runpod.provider.create_training(runpod.request("wrong-key"))
        with pytest.raises(Unauthenticated, match="RUNPOD_API_KEY"):
            _ = runpod.provider.simulated
    finally:
        runpod.simulator.settings(runpod_api_key=None)


def test_a_wrong_endpoint_is_told_with_its_setting(runpod: RunPodBench) -> None:
    runpod.simulator.settings(runpod_endpoint="another")
    try:
        for ask in (
            lambda: runpod.provider.create_training(runpod.request("wrong-endpoint")),
            lambda: runpod.provider.simulated,
        ):
            with pytest.raises(Refused, match=rf"{ENDPOINT}.*LORA_RUNPOD_ENDPOINT"):
                ask()
    finally:
        runpod.simulator.settings(runpod_endpoint=None)


def test_an_empty_account_is_told_with_the_remedy(runpod: RunPodBench) -> None:
    request = runpod.request("no-credit")
    runpod.simulator.fault("runpod.run", "answer", status=402)
    with pytest.raises(InsufficientCredit, match=r"billing.*trainings resume"):
        runpod.provider.create_training(request)


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_refusal_is_for_good_and_started_nothing(status: int) -> None:
    with (
        ScriptedServer(json_reply({"error": "input is required"}, status)) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(Refused, match=r"input is required.*nothing was started"),
    ):
        provider.create_training(wanted())
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda: wanted(token=""), "no token"),
        (lambda: wanted(token="a/../b"), "no token"),
        (lambda: wanted(learning_rate=math.nan), "not JSON"),
        (lambda: wanted(input_images="file:///tmp/x.zip"), "LORA_OBJECT_STORE=s3://"),
        (lambda: TrainingRequest("runpod/x", "../x", {"input_images": DATASET}, None, "t"), "destination"),
        (lambda: TrainingRequest("runpod/x", "acme/x", {"input_images": DATASET}, None, "t"), "destination"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    request_of: Callable[[], TrainingRequest], words: str
) -> None:
    with (
        ScriptedServer(json_reply({"id": JOB, "status": "IN_QUEUE"})) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(Refused, match=words),
    ):
        provider.create_training(request_of())
    assert server.received == []


def test_a_local_folder_is_no_place_for_a_worker(tmp_path: Path) -> None:
    with (
        ScriptedServer(json_reply({"id": JOB, "status": "IN_QUEUE"})) as server,
        a_provider(server.url, open_store(str(tmp_path))) as provider,
    ):
        with pytest.raises(Refused, match="LORA_OBJECT_STORE=s3://"):
            provider.create_training(wanted())
        with (
            (tmp_path / "a.zip").open("w+b") as file,
            pytest.raises(Refused, match="LORA_OBJECT_STORE=s3://"),
        ):
            provider.upload_file("a.zip", file)
    assert server.received == []


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("LORA_RUNPOD_BASE_URL", {"base_url": "ftp://x"}),
        ("LORA_RUNPOD_BASE_URL", {"base_url": "https://user:swordfish@x"}),
        ("LORA_RUNPOD_ENDPOINT", {"endpoint": "a/b"}),
        ("LORA_RUNPOD_ENDPOINT", {"endpoint": ""}),
        ("RUNPOD_API_KEY", {"api_key": "rpa_swordfish swordfish"}),
        ("LORA_RUNPOD_EXECUTION_TIMEOUT", {"execution_timeout": timedelta(seconds=4)}),
        ("LORA_RUNPOD_EXECUTION_TIMEOUT", {"execution_timeout": timedelta(days=8)}),
        ("time to live", {"ttl": timedelta(hours=2)}),
        ("time to live", {"ttl": timedelta(days=8)}),
    ],
)
def test_a_setting_that_cannot_be_one_is_named_and_not_quoted(
    setting: str, change: dict[str, object]
) -> None:
    given: dict[str, object] = {
        "base_url": "https://api.runpod.ai",
        "endpoint": ENDPOINT,
        "api_key": RUNPOD_KEY,
        "execution_timeout": timedelta(hours=3),
        "ttl": timedelta(hours=24),
    }
    with pytest.raises(ValueError, match=setting) as caught:
        RunPodProvider(bucket=a_store(), timeout=2, **(given | change))  # type: ignore[arg-type]
    assert "swordfish" not in str(caught.value)


def test_the_key_of_the_weights_is_the_run_s_own() -> None:
    assert weights_key("3f2a", "style_1_vV7") == "trained/3f2a/style_1_vV7.safetensors"
