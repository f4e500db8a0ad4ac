"""Replicate's webhooks at our server: over real HTTP, sent by the simulator with its faults, on both databases."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from lora_pipeline.api.app import create_app
from lora_pipeline.api.server import server_config
from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import WebhookDelivery
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.webhooks import FOREIGN_SECRET, signature
from lora_pipeline.trainings.submission import Submission, submit_training
from lora_pipeline.trainings.webhooks import MAX_BODY_BYTES
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, run_row
from lora_pipeline_tests.trainings.steps import RULES, follow, job_of, state_of


@pytest.fixture
def connections(database_address: str, simulator: RunningSimulator, tmp_path: Path) -> Iterator[Connections]:
    settings = Settings(
        home=tmp_path,
        database_url=database_address,
        replicate_base_url=simulator.url,
        replicate_api_token="r8_test",
    )
    made = Connections(settings)
    yield made
    made.database.close()


@pytest.fixture
def hook(connections: Connections) -> Iterator[str]:
    """The address of the webhook at a server of ours."""
    server = uvicorn.Server(server_config(create_app(connections)))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/webhooks/replicate"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def run_id(database: Database, store: ObjectStore, provider: ReplicateProvider, hook: str) -> int:
    """A submitted training whose events come to our server."""
    found = add_packed_run(database, store)
    result = submit_training(database, store, provider, found, replace(RULES, webhook=hook))
    assert result.outcome is Submission.SUBMITTED
    return found


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 10 seconds"
        time.sleep(0.01)


def deliveries(database: Database) -> list[WebhookDelivery]:
    with database.read() as session:
        return session.query(WebhookDelivery).order_by(WebhookDelivery.id).all()


def outcomes(simulator: RunningSimulator) -> list[str]:
    """What the simulator was answered, oldest first."""
    return [row["outcome"] for row in reversed(simulator.read("webhooks")["deliveries"])]


def signed(secret: str, body: bytes, webhook_id: str = "msg_1", at: int | None = None) -> dict[str, str]:
    moment = int(time.time()) if at is None else at
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": signature(secret, webhook_id, moment, body),
    }


def test_a_webhook_makes_the_end_known_without_a_poll(
    database: Database, simulator: RunningSimulator, run_id: int
) -> None:
    simulator.end(job_of(database, run_id))
    eventually(lambda: state_of(database, run_id) == "succeeded")
    assert simulator.requests().get("trainings.list", 0) == 0
    eventually(lambda: all(delivery.handled_at for delivery in deliveries(database)))
    last = deliveries(database)[-1]
    assert last.job_id == job_of(database, run_id)
    assert "succeeded" in str(last.outcome)


def test_events_in_their_order_move_the_training_step_by_step(
    database: Database, simulator: RunningSimulator, run_id: int
) -> None:
    simulator.advance(300)
    eventually(lambda: state_of(database, run_id) == "running")
    assert run_row(database, run_id).progress > 0, "the answer to the question carries the log"
    simulator.advance(3600)
    eventually(lambda: state_of(database, run_id) == "succeeded")
    assert set(outcomes(simulator)) == {"200"}


def test_a_late_webhook_does_not_reopen_a_finished_training(
    database: Database, simulator: RunningSimulator, run_id: int
) -> None:
    simulator.fault("webhooks.send", "reordered", seconds=60, match="start")
    simulator.advance(300)
    simulator.end(job_of(database, run_id))
    eventually(lambda: len(deliveries(database)) == 2)
    eventually(lambda: all(delivery.handled_at for delivery in deliveries(database)))
    assert [delivery.status for delivery in deliveries(database)] == ["succeeded", "processing"]
    assert state_of(database, run_id) == "succeeded"
    assert simulator.requests()["trainings.get"] == 1, "what can be no news is not asked about"


def test_a_doubled_webhook_is_kept_once(database: Database, simulator: RunningSimulator, run_id: int) -> None:
    simulator.fault("webhooks.send", "doubled", match="completed")
    simulator.end(job_of(database, run_id))
    assert outcomes(simulator) == ["200", "200"]
    assert len(deliveries(database)) == 1


def test_a_lost_webhook_costs_time_and_nothing_else(
    database: Database,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    run_id: int,
    clock: Clock,
) -> None:
    simulator.fault("webhooks.send", "lost", match="completed")
    simulator.end(job_of(database, run_id))
    assert state_of(database, run_id) == "submitted"
    follow(database, provider, clock)
    assert state_of(database, run_id) == "succeeded"


@pytest.mark.parametrize("fault", ["forged", "stale"])
def test_a_forged_or_replayed_webhook_is_refused_and_the_true_one_taken(
    database: Database, simulator: RunningSimulator, run_id: int, fault: str
) -> None:
    simulator.fault("webhooks.send", fault, match="completed")
    simulator.end(job_of(database, run_id), "failed", "CUDA out of memory")
    eventually(lambda: state_of(database, run_id) == "failed")
    assert outcomes(simulator) == ["401", "200"]
    assert len(deliveries(database)) == 1
    assert run_row(database, run_id).output_version is None


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,no base64!"},
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "v2,AAAA"},
        {"webhook-signature": "x,y,z"},
        {"webhook-signature": ""},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-timestamp": str(int(time.time()) - 301)},
        {"webhook-timestamp": str(int(time.time()) + 1000)},
        {"webhook-id": ""},
        {"webhook-id": "msg_2"},
    ],
)
def test_a_delivery_that_is_not_signed_by_replicate_is_refused(
    database: Database, provider: ReplicateProvider, hook: str, change: dict[str, str]
) -> None:
    body = json.dumps({"id": "a" * 26, "status": "succeeded"}).encode()
    headers = signed(provider.webhook_secret(), body) | change
    answer = httpx.post(hook, content=body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert deliveries(database) == []


def test_a_delivery_with_no_header_another_secret_or_other_bytes_is_refused(
    database: Database, provider: ReplicateProvider, hook: str
) -> None:
    body = json.dumps({"id": "a" * 26, "status": "succeeded"}).encode()
    secret = provider.webhook_secret()
    for content, headers in (
        (body, {}),
        (body, signed(FOREIGN_SECRET, body)),
        (body + b" ", signed(secret, body)),
        (b"\xff\xfe", signed(secret, b"\xff\xfe")),
    ):
        assert httpx.post(hook, content=content, headers=headers).status_code == 401
    assert deliveries(database) == []


@pytest.mark.parametrize(
    "document",
    [[], {}, {"id": "a" * 26}, {"id": 7, "status": "x"}, {"id": "../x", "status": "succeeded"}, "text"],
)
def test_a_signed_delivery_about_nothing_is_refused_as_such(
    database: Database, provider: ReplicateProvider, hook: str, document: Any
) -> None:
    body = json.dumps(document).encode()
    answer = httpx.post(hook, content=body, headers=signed(provider.webhook_secret(), body))
    assert answer.status_code == 400
    assert deliveries(database) == []


def test_several_megabytes_of_log_are_taken_and_not_kept(
    database: Database, provider: ReplicateProvider, simulator: RunningSimulator, run_id: int, hook: str
) -> None:
    job_id = job_of(database, run_id)
    simulator.end(job_id)
    eventually(lambda: state_of(database, run_id) == "succeeded")
    document = {"id": job_id, "status": "succeeded", "logs": "█ 100/1000\r" * 600_000}
    body = json.dumps(document, ensure_ascii=False).encode()
    assert len(body) > 7 * 2**20
    headers = signed(provider.webhook_secret(), body, "msg_large")
    assert httpx.post(hook, content=body, headers=headers).status_code == 200
    for delivery in deliveries(database):
        assert sum(len(str(value)) for value in vars(delivery).values()) < 2_000


def test_a_body_beyond_all_measure_is_refused_without_reading_on(database: Database, hook: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    assert httpx.post(hook, content=endless(), timeout=60).status_code == 413
    assert deliveries(database) == []


def test_a_delivery_for_an_unknown_job_is_kept_and_matched_later(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    hook: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_id = add_packed_run(database, store)
    submit_training(database, store, provider, run_id, RULES)
    job_id = job_of(database, run_id)
    with database.begin() as session:
        run = session.get_one(type(run_row(database, run_id)), run_id)
        run.training_id = None
    simulator.end(job_id)
    body = json.dumps({"id": job_id, "status": "succeeded"}).encode()
    assert httpx.post(hook, content=body, headers=signed(provider.webhook_secret(), body)).status_code == 200
    eventually(lambda: deliveries(database)[0].outcome)
    assert f"Version not found for job ID: {job_id}" in caplog.text
    assert deliveries(database)[0].handled_at is None

    with database.begin() as session:
        run = session.get_one(type(run_row(database, run_id)), run_id)
        run.training_id = job_id
    other = json.dumps({"id": "b" * 26, "status": "starting"}).encode()
    httpx.post(hook, content=other, headers=signed(provider.webhook_secret(), other, "msg_2"))
    eventually(lambda: state_of(database, run_id) == "succeeded")
    assert deliveries(database)[0].handled_at is not None


def test_while_the_secret_cannot_be_read_the_sender_is_told_to_try_again(
    database: Database, provider: ReplicateProvider, simulator: RunningSimulator, hook: str
) -> None:
    body = json.dumps({"id": "a" * 26, "status": "succeeded"}).encode()
    headers = signed(provider.webhook_secret(), body)
    simulator.fault("webhooks.default.secret.get", "answer", status=500, times=3)
    assert httpx.post(hook, content=body, headers=headers).status_code == 503
    assert httpx.post(hook, content=body, headers=headers).status_code == 200
    assert len(deliveries(database)) == 1


def test_a_delivery_is_answered_while_the_provider_does_not_answer_us(
    database: Database, simulator: RunningSimulator, run_id: int, provider: ReplicateProvider, hook: str
) -> None:
    body = json.dumps({"id": job_of(database, run_id), "status": "processing"}).encode()
    headers = signed(provider.webhook_secret(), body)
    httpx.post(hook, content=b"", headers={})
    simulator.fault("trainings.get", "delay", seconds=2.0, moment="after")
    started = time.monotonic()
    assert httpx.post(hook, content=body, headers=headers).status_code == 200
    assert time.monotonic() - started < 1.5
