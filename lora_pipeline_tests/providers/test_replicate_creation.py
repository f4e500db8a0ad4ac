"""Starting a paid training: sent once, and every way it can end told apart by what may be done next."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lora_pipeline.providers.protocol import (
    DestinationMissing,
    InsufficientCredit,
    JobState,
    NameBurned,
    ProviderUnavailable,
    Refused,
    Throttled,
    TrainingRequest,
    Unauthenticated,
    UnknownOutcome,
)
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.providers.conftest import DESTINATION, IMAGES, TOKEN, paid, wanted
from lora_pipeline_tests.providers.scripted import HTML, Reply, ScriptedServer, json_reply


def test_a_created_training_is_read_with_its_mark(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    job = provider.create_training(wanted(destination))

    assert job.state is JobState.QUEUED
    assert job.provider_status == "starting"
    assert job.input_reference == IMAGES
    assert job.trainer_version == FLUX_TRAINER.split(":")[1]
    assert (job.output_version, job.output_weights, job.predict_seconds) == (None, None, None)
    assert [one["id"] for one in paid(simulator, destination)] == [job.id]


def test_a_refused_connection_surely_started_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with ReplicateProvider(f"http://127.0.0.1:{port}", TOKEN, timeout=2) as provider:
        with pytest.raises(ProviderUnavailable, match="nothing was sent"):
            provider.create_training(wanted())
        with pytest.raises(ProviderUnavailable, match="will be asked again"):
            provider.get_training("abc")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "hang"},
        {"kind": "answer", "status": 500},
        {"kind": "answer", "status": 502, "body": "html"},
        {"kind": "answer", "status": 503, "retry_after": 0},
        {"kind": "answer", "status": 504, "body": "empty"},
        {"kind": "answer", "status": 408, "body": "empty"},
        {"kind": "answer", "status": 307, "location": "/v1/elsewhere"},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
def test_whatever_is_no_answer_has_an_unknown_outcome_and_is_not_sent_again(
    simulator: RunningSimulator, destination: str, fault: dict[str, object], moment: str
) -> None:
    simulator.fault("trainings.create", moment=moment, **fault)  # type: ignore[arg-type]

    with ReplicateProvider(simulator.url, TOKEN, timeout=0.3) as provider, pytest.raises(UnknownOutcome):
        provider.create_training(wanted(destination))

    assert simulator.requests()["trainings.create"] == 1
    assert len(paid(simulator, destination)) == (1 if moment == "after" else 0)


def test_an_answer_that_breaks_off_has_an_unknown_outcome(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.fault("trainings.create", "cut_body")

    with pytest.raises(UnknownOutcome):
        provider.create_training(wanted(destination))

    assert len(paid(simulator, destination)) == 1


@pytest.mark.parametrize("reply", [HTML, Reply(201, b"[]"), Reply(201, b""), json_reply({"id": None}, 201)])
def test_a_success_that_names_no_training_has_an_unknown_outcome(reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(UnknownOutcome, match="names no id"),
    ):
        provider.create_training(wanted())


@pytest.mark.parametrize(
    "strange",
    [
        {"status": "aborted"},
        {"status": None},
        {"status": "succeeded", "output": {"version": "0123abcd"}},
        {"status": "starting", "output": ["?"], "model": 5},
    ],
)
def test_the_id_of_a_created_training_survives_an_answer_the_official_client_cannot_parse(
    strange: dict[str, object],
) -> None:
    with (
        ScriptedServer(json_reply({"id": "k8sy6bgx31rm80cr2cwbn2bqkw", **strange}, 201)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        job = provider.create_training(wanted())

    assert job.id == "k8sy6bgx31rm80cr2cwbn2bqkw"
    assert job.state is {"aborted": JobState.ABORTED}.get(str(strange["status"]), job.state)
    assert len(server.received) == 1


def test_a_substituted_trainer_version_is_told(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"substituted_version": "26dc" + "0" * 60})

    assert provider.create_training(wanted(destination)).trainer_version == "26dc" + "0" * 60


def test_throttling_says_how_long_to_wait_and_starts_nothing(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.fault("trainings.create", "answer", status=429, retry_after=7)

    with pytest.raises(Throttled) as caught:
        provider.create_training(wanted(destination))

    assert caught.value.retry_after == 7
    assert simulator.requests()["trainings.create"] == 1
    assert paid(simulator, destination) == []


def test_an_empty_account_is_told_with_the_remedy(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.settings(out_of_credit=True)

    with pytest.raises(InsufficientCredit, match=r"billing.*trainings resume"):
        provider.create_training(wanted(destination))


def test_a_wrong_token_is_told_with_the_remedy(simulator: RunningSimulator) -> None:
    with ReplicateProvider(simulator.url, "r8_wrongwrongwrong", timeout=5) as provider:
        with pytest.raises(Unauthenticated, match="REPLICATE_API_TOKEN"):
            provider.create_training(wanted())
        with pytest.raises(Unauthenticated, match="REPLICATE_API_TOKEN"):
            provider.owner()


def test_a_missing_destination_is_made_as_often_as_asked_and_takes_the_training(
    provider: ReplicateProvider, new_name: str
) -> None:
    with pytest.raises(DestinationMissing, match="nothing was started"):
        provider.create_training(wanted(new_name))

    provider.ensure_destination(new_name, description="LoRA of user-1")
    provider.ensure_destination(new_name, description="LoRA of user-1")

    assert provider.create_training(wanted(new_name)).id


def test_what_a_face_is_trained_into_is_private(simulator: RunningSimulator, new_name: str) -> None:
    with ReplicateProvider(simulator.url, TOKEN, timeout=5) as provider:
        provider.ensure_destination(new_name, description="LoRA of user-1")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    made = httpx.get(f"{simulator.url}/v1/models/{new_name}", headers=headers).json()
    assert made["visibility"] == "private"


def test_a_destination_that_is_there_is_taken() -> None:
    answers = iter([409, 200])
    with (
        ScriptedServer(lambda _: json_reply({"detail": "…", "name": "x"}, next(answers))) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        provider.ensure_destination(DESTINATION, description="")

    assert [request.method for request in server.received] == ["POST", "GET"]


def test_a_burned_name_is_told_apart(
    simulator: RunningSimulator, provider: ReplicateProvider, new_name: str
) -> None:
    simulator.control(f"models/{new_name}/burn")

    with pytest.raises(NameBurned, match=new_name):
        provider.ensure_destination(new_name, description="")


@pytest.mark.parametrize("kind", ["drop", "answer"])
def test_an_unclear_creation_of_a_destination_is_only_unavailable(
    simulator: RunningSimulator, provider: ReplicateProvider, new_name: str, kind: str
) -> None:
    simulator.fault("models.create", kind, moment="after")

    with pytest.raises(ProviderUnavailable):
        provider.ensure_destination(new_name, description="")

    provider.ensure_destination(new_name, description="")


def test_a_destination_of_another_account_is_refused(provider: ReplicateProvider) -> None:
    with pytest.raises(Refused, match="403"):
        provider.ensure_destination("somebody/else", description="")


def test_a_refused_input_names_the_fields(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    with pytest.raises(
        Refused, match=r"422.*Input validation failed.*input\.steps.*less than or equal to 6000"
    ):
        provider.create_training(wanted(destination, steps=9000))

    assert paid(simulator, destination) == []


def test_an_unknown_trainer_version_is_refused(provider: ReplicateProvider, destination: str) -> None:
    trainer = "ostris/flux-dev-lora-trainer:" + "0" * 64
    with pytest.raises(Refused, match="does not exist"):
        provider.create_training(TrainingRequest(trainer, destination, {"input_images": IMAGES}))


@pytest.mark.parametrize(
    "trainer", ["k8sy6bgx31rm80cr2cwbn2bqkw", "e44090" * 8, "0" * 64, "nobody:" + "0" * 64]
)
def test_a_trainer_that_is_no_trainer_is_refused_before_anything_is_sent(
    simulator: RunningSimulator, provider: ReplicateProvider, trainer: str
) -> None:
    with pytest.raises(Refused):
        provider.create_training(TrainingRequest(trainer, DESTINATION, {}))

    assert simulator.requests() == {}


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_an_input_that_is_no_json_is_refused_before_anything_is_sent(
    simulator: RunningSimulator, provider: ReplicateProvider, value: object
) -> None:
    with pytest.raises(Refused, match="nothing was sent"):
        provider.create_training(wanted(steps=value))

    assert simulator.requests() == {}


def test_a_webhook_asks_for_start_and_end_only() -> None:
    request = TrainingRequest(FLUX_TRAINER, DESTINATION, {"input_images": IMAGES}, "https://hooks.example/1")
    with (
        ScriptedServer(json_reply({"id": "abc", "status": "starting"}, 201)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        provider.create_training(request)

    sent = server.received[0]
    assert sent.json() == {
        "destination": DESTINATION,
        "input": {"input_images": IMAGES},
        "webhook": "https://hooks.example/1",
        "webhook_events_filter": ["start", "completed"],
    }
    assert sent.path == f"/v1/models/{FLUX_TRAINER.replace(':', '/versions/')}/trainings"
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"


def test_eight_threads_share_one_provider(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    simulator.fault("trainings.create", "answer", status=429, retry_after=1, times=5)

    def submit(n: int) -> str | None:
        try:
            return provider.create_training(wanted(destination, trigger_word=f"user{n}")).id
        except Throttled:
            return None

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(submit, range(40)))

    assert ids.count(None) == 5
    assert {one["id"] for one in paid(simulator, destination)} == {one for one in ids if one}
