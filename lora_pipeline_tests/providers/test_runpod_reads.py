"""Following RunPod jobs and finding their weights: what RunPod says, what the bucket proves, and what neither does."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entry_defects import entry_defects
from lora_pipeline.objects import open_store
from lora_pipeline.providers.protocol import (
    JobState,
    NotFound,
    ProviderUnavailable,
    Refused,
    Throttled,
    Unauthenticated,
)
from lora_pipeline.providers.runpod import weights_key
from lora_pipeline.simulator.runpod_jobs import OUTCOMES
from lora_pipeline_tests.fixtures.runpod import DESTINATION, ENDPOINT, RunPodBench, a_provider
from lora_pipeline_tests.providers.scripted import HTML, Received, Reply, ScriptedServer, json_reply
from lora_pipeline_tests.providers.test_runpod_creation import JOB, S3_ENV, a_store

BASE = JOB.removesuffix("-u1")


def test_the_server_is_asked_once_whether_it_is_simulated(runpod: RunPodBench) -> None:
    assert (runpod.provider.simulated, runpod.provider.simulated) == (True, True)
    assert runpod.simulator.requests() == {"runpod.health": 1}


def test_the_real_one_is_not_simulated() -> None:
    with (
        ScriptedServer(json_reply({"jobs": {}, "workers": {}})) as server,
        a_provider(server.url, a_store()) as provider,
    ):
        assert not provider.simulated
    assert [request.path for request in server.received] == [f"/v2/{ENDPOINT}/health"]


def test_a_job_is_followed_from_the_queue_to_its_weights(runpod: RunPodBench) -> None:
    provider = runpod.provider
    job_id = provider.create_training(runpod.request("followed")).id
    assert provider.get_training(job_id).state is JobState.QUEUED

    runpod.simulator.advance(600)
    running = provider.get_training(job_id)
    assert (running.state, running.mark) == (JobState.RUNNING, "followed")
    assert "avr_loss" in (running.logs or "")
    assert provider.find_training("followed", DESTINATION) is None

    runpod.simulator.advance(1800)
    done = provider.get_training(job_id)
    assert (done.state, done.provider_status, done.mark) == (JobState.SUCCEEDED, "COMPLETED", "followed")
    assert done.output_weights is None, "RunPod's word proves no weights"
    assert 0.64 < (done.predict_seconds or 0) / 2000 < 1.14

    found = provider.find_training("followed", DESTINATION)
    assert found is not None
    assert (found.id, found.state, found.mark) == (job_id, JobState.SUCCEEDED, "followed")
    assert found.output_weights == f"{runpod.store.root}/trained/followed/{DESTINATION}.safetensors"
    assert b"".join(provider.download(found.output_weights)) == runpod.weights("followed")


def test_a_training_whose_webhook_and_result_are_gone_is_found_in_the_bucket(runpod: RunPodBench) -> None:
    job_id = runpod.provider.create_training(runpod.request("expired")).id
    runpod.simulator.end_job(job_id)
    runpod.simulator.advance(1801)
    with pytest.raises(NotFound, match="half an hour"):
        runpod.provider.get_training(job_id)
    found = runpod.provider.find_training("expired", DESTINATION)
    assert found is not None
    assert found.id == job_id


def test_ten_minutes_end_a_job_and_the_error_says_which_setting(runpod: RunPodBench) -> None:
    job_id = runpod.provider.create_training(runpod.request("cut-off")).id
    runpod.simulator.advance(100)
    runpod.simulator.end_job(job_id, "TIMED_OUT")

    job = runpod.provider.get_training(job_id)

    assert (job.state, job.provider_status) == (JobState.FAILED, "TIMED_OUT")
    assert (job.error or "").startswith("timed out after ")
    assert "(executionTimeout 10800 s, set by LORA_RUNPOD_EXECUTION_TIMEOUT)" in (job.error or "")


@pytest.mark.parametrize(
    ("quirk", "state", "error"),
    [
        ({"output": "none"}, JobState.SUCCEEDED, None),
        ({"output": "not_ok"}, JobState.FAILED, "the worker says that it failed, and not why"),
        ({"output": "error"}, JobState.FAILED, "CUDA error: out of memory"),
        ({"error": "no space left", "error_type": "OSError"}, JobState.FAILED, "OSError: no space left"),
        ({"status": "HIBERNATED"}, JobState.UNKNOWN, None),
    ],
    ids=str,
)
def test_what_a_job_says_of_its_end(
    runpod: RunPodBench, quirk: dict[str, str], state: JobState, error: str | None
) -> None:
    runpod.quirk(upload="skipped", **quirk)
    job_id = runpod.provider.create_training(runpod.request("-".join(quirk.values()).replace(" ", "-"))).id
    runpod.simulator.advance(2400)
    job = runpod.provider.get_training(job_id)
    assert (job.state, job.error) == (state, error)


def test_a_cancel_is_told_and_can_be_asked_for_again(runpod: RunPodBench) -> None:
    job_id = runpod.provider.create_training(runpod.request("cancelled")).id
    runpod.simulator.fault("runpod.cancel", "drop", moment="after")
    for _ in range(2):
        assert runpod.provider.cancel_training(job_id).state is JobState.CANCELED
    assert runpod.provider.get_training(job_id).state is JobState.CANCELED
    with pytest.raises(NotFound):
        runpod.provider.cancel_training(f"{BASE}-e1")


def test_every_outcome_of_runpod_is_terminal_here(runpod: RunPodBench) -> None:
    for outcome in OUTCOMES:
        job_id = runpod.provider.create_training(runpod.request(f"end-{outcome}")).id
        runpod.simulator.end_job(job_id, outcome)
        assert runpod.provider.get_training(job_id).state in (
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELED,
        )


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 401}, Unauthenticated),
        ({"status": 404}, NotFound),
        ({"status": 404, "body": "html"}, ProviderUnavailable),
        ({"status": 400}, Refused),
        ({"status": 429, "retry_after": 7}, Throttled),
        ({"status": 500}, ProviderUnavailable),
        ({"status": 502, "body": "html"}, ProviderUnavailable),
        ({"status": 302, "location": "http://127.0.0.1:1/stolen"}, ProviderUnavailable),
    ],
    ids=str,
)
def test_a_status_that_cannot_be_read_says_what_may_be_done_next(
    runpod: RunPodBench, fault: dict[str, object], error: type[Exception]
) -> None:
    runpod.simulator.fault("runpod.status", "answer", times=3, **fault)
    with pytest.raises(error) as caught:
        runpod.provider.get_training(JOB)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "reply",
    [HTML, Reply(200, b"[]"), json_reply({"id": JOB}), json_reply({"status": "COMPLETED"})],
)
def test_an_answer_that_makes_no_sense_is_no_answer(reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(ProviderUnavailable, match="makes no sense"),
    ):
        provider.get_training(JOB)


@pytest.mark.parametrize("answered", [JOB, BASE, f"{BASE}-e1"])
def test_an_id_matches_by_its_uuid_where_a_suffix_differs(answered: str) -> None:
    with (
        ScriptedServer(json_reply({"id": answered, "status": "IN_QUEUE"})) as server,
        a_provider(server.url, a_store()) as provider,
    ):
        assert provider.get_training(JOB).id == JOB, "word for word, as it was asked for"


def test_an_answer_about_another_job_is_refused() -> None:
    other = {"id": "e0e7a2a8-0000-4000-8000-000000000000-u1", "status": "COMPLETED"}
    with (
        ScriptedServer(json_reply(other)) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(ProviderUnavailable, match="another job"),
    ):
        provider.get_training(JOB)


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "a?b", "a b", "x" * 200, "a\n", "ä"])
def test_an_id_that_cannot_stand_in_a_path_is_not_asked_for(job_id: str) -> None:
    with (
        ScriptedServer(json_reply({"id": job_id, "status": "COMPLETED"})) as server,
        a_provider(server.url, a_store()) as provider,
    ):
        for ask in (provider.get_training, provider.cancel_training):
            with pytest.raises(NotFound):
                ask(job_id)
    assert server.received == []


def test_a_trickling_answer_does_not_hold_a_tick_up() -> None:
    reply = Reply(200, b'{"id": "' + b"x" * 500 + b'"}', trickle=0.05)
    started = time.monotonic()
    with (
        ScriptedServer(reply) as server,
        a_provider(server.url, a_store(), timeout=0.5) as provider,
        pytest.raises(ProviderUnavailable),
    ):
        provider.get_training(JOB)
    assert time.monotonic() - started < 3


def test_no_redirect_is_followed_and_the_key_goes_nowhere_else() -> None:
    with ScriptedServer(json_reply({"id": JOB, "status": "COMPLETED"})) as thief:

        def away(_: Received) -> Reply:
            return Reply(307, headers={"Location": f"{thief.url}/v2/x"})

        with ScriptedServer(away) as server, a_provider(server.url, a_store()) as provider:
            for ask in (provider.get_training, provider.cancel_training):
                with pytest.raises(ProviderUnavailable):
                    ask(JOB)
    assert thief.received == []


def test_nothing_is_listed_and_nothing_is_kept_at_runpod(runpod: RunPodBench) -> None:
    provider = runpod.provider
    runpod.simulator.control("requests/reset")
    provider.ensure_destination(DESTINATION, description="a LoRA")
    provider.delete_file("file")
    assert list(provider.list_trainings()) == []
    assert list(provider.list_versions("style_1")) == []
    assert runpod.simulator.requests() == {}


def test_the_schema_is_the_worker_s_and_knows_the_words_that_old_entries_are_held_to() -> None:
    with a_provider("http://127.0.0.1:1", a_store()) as provider:
        schema = provider.input_schema("runpod/any")
        schema["properties"].clear()
        schema = provider.input_schema("runpod/any")
    assert schema["required"] == ["class_tokens"]
    known = schema["properties"]
    assert set(known) == {
        "class_tokens",
        "training_type",
        "network_dim",
        "network_alpha",
        "learning_rate",
        "max_train_steps",
        "lr_scheduler",
        "lr_warmup_steps",
        "optimizer_type",
        "batch_size",
        "num_repeats",
        "gradient_dtype",
        "save_every_n_steps",
    }
    for name, spec in known.items():
        for word in spec.get("enum", ()):
            entry = {"id": "a", "status": "completed", "timestamp": "2025-10-12T08:14:00.884Z"}
            defects = entry_defects(
                [entry | {"parameters": {name: word}}], ObjectUrlRules(), datetime(2025, 11, 1, tzinfo=UTC)
            )
            assert [defect for defect in defects if defect.kind == "odd_parameter"] == []


@pytest.mark.parametrize(
    ("metadata", "found", "job_id"),
    [
        ({"runpod_job_id": JOB, "token": "beside"}, True, JOB),
        ({"runpod-job-id": JOB, "token": "beside"}, True, JOB),
        ({}, True, ""),
        ({"runpod_job_id": JOB}, True, JOB),
        ({"runpod_job_id": "no id/at all"}, True, ""),
        ({"runpod_job_id": JOB, "token": "another"}, False, ""),
    ],
    ids=str,
)
def test_the_object_says_whose_it_is(
    runpod: RunPodBench, metadata: dict[str, str], found: bool, job_id: str
) -> None:
    runpod.store.put_bytes(weights_key("beside", DESTINATION), b"weights", metadata=metadata)
    job = runpod.provider.find_training("beside", DESTINATION)
    assert (job is not None) == found
    assert job is None or (job.id, job.mark, job.state) == (job_id, "beside", JobState.SUCCEEDED)
    assert runpod.provider.find_training("beside", "style_1_vV8") is None


@pytest.mark.parametrize("status", [403, 503])
def test_a_bucket_that_cannot_be_asked_proves_nothing(status: int) -> None:
    with ScriptedServer(Reply(status, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")) as s3:
        store = open_store("s3://user-files/lora", endpoint_url=s3.url, env=S3_ENV)
        with (
            a_provider("http://127.0.0.1:1", store) as provider,
            pytest.raises(ProviderUnavailable, match="cannot be looked for"),
        ):
            provider.find_training("token-1", DESTINATION)


@pytest.mark.parametrize(
    "address",
    [
        "https://mallory.s3.amazonaws.com/lora.safetensors",
        "http://169.254.169.254/latest/meta-data",
        "s3://another-bucket/lora/trained/t/x.safetensors",
        "{root}/../other/x.safetensors",
        "{root}",
        "file:///etc/passwd",
    ],
)
def test_nothing_but_the_bucket_is_read(runpod: RunPodBench, address: str) -> None:
    with pytest.raises(Refused, match="lies outside"):
        list(runpod.provider.download(address.format(root=runpod.store.root)))


def test_weights_that_are_gone_are_not_found(runpod: RunPodBench) -> None:
    with pytest.raises(NotFound):
        list(runpod.provider.download(runpod.store.address("trained/x/y.safetensors")))
