"""Reading trainings, versions, files and the account: bounded in time, and never wrong about what an answer means."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest

from lora_pipeline.providers.protocol import (
    JobState,
    NotFound,
    ProviderUnavailable,
    Refused,
    Throttled,
    TrainingProvider,
)
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.providers.conftest import SETTINGS, TOKEN, wanted
from lora_pipeline_tests.providers.scripted import HTML, Received, Reply, ScriptedServer, json_reply


@pytest.fixture
def own_simulator() -> Iterator[RunningSimulator]:
    """A server without the trainings of other tests."""
    with RunningSimulator(SETTINGS) as running:
        yield running


def test_it_is_a_training_provider(provider: ReplicateProvider) -> None:
    typed: TrainingProvider = provider
    assert typed.name == "replicate"


def test_the_account_is_asked_once_and_says_that_it_is_simulated(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    assert (provider.simulated, provider.owner(), provider.simulated) == (True, "acme", True)
    assert simulator.requests()["account.get"] == 1


def test_the_owner_of_destinations_can_be_set_and_the_real_provider_is_not_simulated() -> None:
    with (
        ScriptedServer(json_reply({"username": "token-owner"})) as server,
        ReplicateProvider(f"{server.url}/v1/", TOKEN, timeout=2, owner="acme") as provider,
    ):
        assert provider.owner() == "acme"
        assert not provider.simulated
        assert server.received[0].path == "/v1/account"


def test_a_training_is_followed_from_queue_to_weights(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    job_id = provider.create_training(wanted(destination)).id
    simulator.advance(600)
    running = provider.get_training(job_id)
    assert running.state is JobState.RUNNING
    assert "flux_train_replicate" in (running.logs or "")

    simulator.end(job_id)
    done = provider.get_training(job_id)

    assert done.state is JobState.SUCCEEDED
    assert (done.output_version or "").startswith(f"{destination}:")
    assert (done.output_weights or "").endswith("/trained_model.tar")
    assert (done.predict_seconds or 0) > 0
    assert done.started_at is not None
    assert done.completed_at is not None
    assert done.started_at < done.completed_at


@pytest.mark.parametrize(
    ("quirk", "version"),
    [
        ({"output": "bare_hash"}, r"[0-9a-f]{64}"),
        ({"output": "model_hash"}, r"[^/]+:[0-9a-f]{64}"),
        ({"output": "null_version"}, None),
        ({"output": "none"}, None),
    ],
)
def test_an_output_version_is_given_on_as_it_is_spelled(
    simulator: RunningSimulator,
    provider: ReplicateProvider,
    destination: str,
    quirk: dict[str, str],
    version: str | None,
) -> None:
    simulator.fault("trainings.create", "quirk", quirk=quirk)
    job_id = provider.create_training(wanted(destination)).id
    simulator.end(job_id)

    done = provider.get_training(job_id)

    assert done.state is JobState.SUCCEEDED
    assert re.fullmatch(version or "None", str(done.output_version))


@pytest.mark.parametrize(
    ("status", "state"), [("aborted", JobState.ABORTED), ("paused_for_maintenance", JobState.UNKNOWN)]
)
def test_aborted_and_words_nobody_knows_are_no_crash(
    simulator: RunningSimulator,
    provider: ReplicateProvider,
    destination: str,
    status: str,
    state: JobState,
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"status": status})
    job_id = provider.create_training(wanted(destination)).id
    simulator.end(job_id)

    job = provider.get_training(job_id)

    assert (job.state, job.provider_status) == (state, status)


def test_a_training_nobody_knows_is_not_found(provider: ReplicateProvider) -> None:
    with pytest.raises(NotFound):
        provider.get_training("k8sy6bgx31rm80cr2cwbn2bqkw")


@pytest.mark.parametrize("job_id", ["", "../account", "a/b", "a?b=1", "a" * 200, ".."])
def test_an_id_that_would_change_the_path_is_not_asked_for(
    simulator: RunningSimulator, provider: ReplicateProvider, job_id: str
) -> None:
    for ask in (provider.get_training, provider.cancel_training, provider.delete_file):
        with pytest.raises(NotFound):
            ask(job_id)
    assert simulator.requests() == {}


def test_the_list_is_read_a_page_at_a_time_newest_first(own_simulator: RunningSimulator) -> None:
    made = [one["id"] for one in own_simulator.control("trainings", count=230)["trainings"]]
    with ReplicateProvider(own_simulator.url, TOKEN, timeout=5) as provider:
        pages = provider.list_trainings()
        first = next(pages)
        assert own_simulator.requests()["trainings.list"] == 1
        rest = [job.id for page in pages for job in page.jobs]

    assert [job.id for job in first.jobs] + rest == made[::-1]
    assert [job.logs for job in first.jobs] == [None] * 100
    assert own_simulator.requests()["trainings.list"] == 3


@pytest.mark.parametrize(
    "item", [{"id": None, "status": 7}, None, [], {"id": "x", "status": "failed", "output": 3}]
)
def test_a_malformed_item_costs_nobody_else_their_place(
    own_simulator: RunningSimulator, item: object
) -> None:
    own_simulator.control("trainings", count=5)
    own_simulator.fault("trainings.list", "malformed_item", item=item)

    with ReplicateProvider(own_simulator.url, TOKEN, timeout=5) as provider:
        (page,) = provider.list_trainings()

    assert len(page.jobs) == 5
    assert len(page.malformed) == 1


def test_a_next_page_at_another_host_is_refused_and_gets_no_token() -> None:
    with ScriptedServer(json_reply({"results": []})) as stranger:
        page = {"results": [], "next": f"{stranger.url}/v1/trainings?cursor=2"}
        with (
            ScriptedServer(json_reply(page)) as server,
            ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
            pytest.raises(ProviderUnavailable, match="token goes nowhere else"),
        ):
            list(provider.list_trainings())
        assert stranger.received == []


def test_pages_that_lead_round_in_a_circle_end() -> None:
    page = {"results": [], "next": "/v1/trainings?cursor=1"}
    with (
        ScriptedServer(json_reply(page)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(ProviderUnavailable, match="circle"),
    ):
        list(provider.list_trainings())
    assert len(server.received) == 2


def test_versions_come_from_all_pages_and_newest_first(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    hashes = [f"{n:064x}" for n in range(60)]
    simulator.control("versions", models={destination: hashes})

    found = list(provider.list_versions(destination))

    assert [version.id for version in found] == hashes[::-1]
    assert found[0].created_at is not None
    assert simulator.requests()["models.versions.list"] == 3


def test_versions_of_a_model_nobody_knows_are_not_found(provider: ReplicateProvider, new_name: str) -> None:
    with pytest.raises(NotFound):
        list(provider.list_versions(new_name))


def test_an_item_that_is_no_version_is_left_out() -> None:
    page = {"results": [{"id": "0" * 64}, {"id": "short"}, None, {"id": "f" * 64, "created_at": 5}]}
    with (
        ScriptedServer(json_reply(page)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        assert [version.id for version in provider.list_versions("acme/x")] == ["0" * 64, "f" * 64]


def test_the_schema_of_a_trainer_is_read_once(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    schema = provider.input_schema(FLUX_TRAINER)
    schema["properties"].clear()
    again = provider.input_schema(FLUX_TRAINER.upper())

    assert again["required"] == ["input_images"]
    assert (again["properties"]["steps"]["minimum"], again["properties"]["steps"]["maximum"]) == (3, 6000)
    assert "num_repeats" not in again["properties"]
    assert simulator.requests()["models.versions.get"] == 1


def test_a_trainer_nobody_knows_is_not_found(provider: ReplicateProvider) -> None:
    with pytest.raises(NotFound):
        provider.input_schema("ostris/flux-dev-lora-trainer:" + "0" * 64)


def test_a_version_without_inputs_is_no_trainer() -> None:
    with (
        ScriptedServer(json_reply({"id": "0" * 64, "openapi_schema": None})) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(Refused, match="LORA_TRAINER"),
    ):
        provider.input_schema(FLUX_TRAINER)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "answer", "status": 500},
        {"kind": "answer", "status": 503, "retry_after": 3600},
        {"kind": "drop"},
    ],
    ids=["500", "503-wait-an-hour", "drop"],
)
def test_a_read_is_tried_three_times_and_no_more(
    simulator: RunningSimulator, provider: ReplicateProvider, fault: dict[str, object]
) -> None:
    simulator.fault("account.get", times=2, **fault)  # type: ignore[arg-type]
    assert provider.owner() == "acme"
    assert simulator.requests()["account.get"] == 3

    simulator.fault("trainings.list", times=9, **fault)  # type: ignore[arg-type]
    with pytest.raises(ProviderUnavailable):
        list(provider.list_trainings())
    assert simulator.requests()["trainings.list"] == 3


def test_a_long_throttle_is_told_and_not_waited_for(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    simulator.fault("trainings.list", "answer", status=429, retry_after=3)
    started = time.monotonic()

    with pytest.raises(Throttled) as caught:
        list(provider.list_trainings())

    assert time.monotonic() - started < 1
    assert caught.value.retry_after == 3
    assert simulator.requests()["trainings.list"] == 1


def test_a_short_throttle_is_waited_for(simulator: RunningSimulator, provider: ReplicateProvider) -> None:
    simulator.fault("account.get", "answer", status=429, retry_after=0)

    assert provider.owner() == "acme"


@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_a_silent_provider_is_given_up_within_the_timeout(
    simulator: RunningSimulator, provider: ReplicateProvider, kind: str
) -> None:
    if kind == "hang":
        simulator.fault("account.get", "hang", times=3)
    else:
        simulator.fault("account.get", "delay", seconds=2, times=3)
    started = time.monotonic()

    with ReplicateProvider(simulator.url, TOKEN, timeout=0.3) as hasty, pytest.raises(ProviderUnavailable):
        hasty.owner()

    assert time.monotonic() - started < 1


def test_an_answer_that_trickles_in_for_ever_is_given_up() -> None:
    endless = Reply(200, b'{"username": "acme", "padding": "' + b"x" * 1000, trickle=0.02)
    with (
        ScriptedServer(endless) as server,
        ReplicateProvider(server.url, TOKEN, timeout=0.4) as provider,
    ):
        started = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            provider.owner()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "reply",
    [
        HTML,
        Reply(404, HTML.body, "text/html"),
        Reply(403, HTML.body, "text/html"),
        Reply(302, headers={"Location": "/elsewhere"}),
        Reply(200, b"[1, 2]"),
        Reply(200, b'{"a": ' * 100_000),
        Reply(204),
        Reply(418, b""),
        json_reply({"status": "starting"}),
    ],
    ids=["html", "html-404", "html-403", "redirect", "list", "nested", "empty", "teapot", "no-id"],
)
def test_what_is_not_the_providers_word_is_only_unavailable(reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        with pytest.raises(ProviderUnavailable):
            provider.get_training("abc")
        with pytest.raises(ProviderUnavailable):
            list(provider.list_trainings())
    assert {request.path for request in server.received} == {"/v1/trainings/abc", "/v1/trainings"}


def test_a_cancel_is_asked_for_and_its_state_read(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    job_id = provider.create_training(wanted(destination)).id

    assert provider.cancel_training(job_id).state is JobState.CANCELED
    assert provider.cancel_training(job_id).state is JobState.CANCELED


def test_a_cancel_that_is_not_answered_may_be_asked_for_again(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"cancel": "refused"})
    job_id = provider.create_training(wanted(destination)).id
    with pytest.raises(ProviderUnavailable):
        provider.cancel_training(job_id)

    simulator.fault("trainings.cancel", "drop", moment="after")
    with pytest.raises(ProviderUnavailable, match="no harm"):
        provider.cancel_training(job_id)

    with pytest.raises(NotFound):
        provider.cancel_training("nobody")


def test_a_file_is_uploaded_and_deleted_however_often(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    uploaded = provider.upload_file("3f2a.zip", io.BytesIO(b"PK" + b"\0" * 100_000))

    assert uploaded.url == f"{simulator.url}/v1/files/{uploaded.id}"
    assert uploaded.url not in repr(uploaded)
    provider.delete_file(uploaded.id)
    provider.delete_file(uploaded.id)
    assert simulator.requests()["files.delete"] == 2


def test_a_file_that_is_too_large_is_refused(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    simulator.settings(file_cap_bytes=1000)

    with pytest.raises(Refused, match="413"):
        provider.upload_file("3f2a.zip", io.BytesIO(b"\0" * 200_000))


def test_an_unclear_upload_is_only_unavailable(
    simulator: RunningSimulator, provider: ReplicateProvider
) -> None:
    simulator.fault("files.create", "drop", moment="after")

    with pytest.raises(ProviderUnavailable):
        provider.upload_file("3f2a.zip", io.BytesIO(b"PK"))


def test_an_upload_whose_answer_lacks_optional_fields_is_read() -> None:
    """The documented answer has neither `name` nor `etag`, which the official client cannot do without."""

    def answer(request: Received) -> Reply:
        assert b'filename="3f2a.zip"' in request.body
        return json_reply({"id": "f1", "urls": {"get": "https://api.replicate.com/v1/files/f1"}}, 201)

    with (
        ScriptedServer(answer) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        assert provider.upload_file("3f2a.zip", io.BytesIO(b"PK")).id == "f1"
