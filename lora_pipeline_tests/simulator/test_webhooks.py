"""Webhooks: signed as the provider signs them, sent for the events asked for, faulty where that is asked for."""

from __future__ import annotations

import json

import httpx
import pytest
from replicate.client import Client
from replicate.webhook import InvalidSignatureError, InvalidTimestampError, Webhooks, WebhookSigningSecret
from standardwebhooks import Webhook, WebhookVerificationError

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.simulator.conftest import CREATE, Receiver, order


def create(api: httpx.Client, receiver: Receiver, *events: str) -> str:
    body = order() | {"webhook": receiver.url}
    if events:
        body["webhook_events_filter"] = list(events)
    return str(api.post(CREATE, json=body).json()["id"])


def test_both_verifiers_accept_the_signature_over_the_raw_body(
    simulator: RunningSimulator, api: httpx.Client, client: Client, receiver: Receiver
) -> None:
    identity = create(api, receiver, "completed")
    simulator.advance(3000)
    ((headers, body),) = receiver.got
    secret = client.webhooks.default.secret()
    assert secret.key.startswith("whsec_")
    assert Webhook(secret.key).verify(body, headers)["id"] == identity
    Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=300)
    with pytest.raises(InvalidSignatureError):
        Webhooks.validate(headers=headers, body=body.decode() + " ", secret=secret)


def test_the_body_is_the_get_answer_with_logs(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    identity = create(api, receiver, "completed")
    simulator.advance(3000)
    assert receiver.bodies == [api.get(f"/v1/trainings/{identity}").json()]
    assert "flux_train_replicate" in receiver.bodies[0]["logs"]


def test_events_come_as_the_filter_asks(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.settings(webhook_throttle_s=0.0)
    create(api, receiver, "start", "logs", "output", "completed")
    simulator.advance(20)
    simulator.advance(300)
    simulator.advance(300)
    running = [body["status"] for body in receiver.bodies]
    assert running[0] == "processing"
    assert len(running) >= 3, "start, then logs after each move of the clock"
    simulator.advance(3000)
    assert [body["status"] for body in receiver.bodies[len(running) :]] == ["succeeded", "succeeded"]


def test_without_a_filter_output_and_completed_are_sent(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    create(api, receiver)
    simulator.advance(100)
    assert receiver.got == []
    simulator.advance(3000)
    assert [body["status"] for body in receiver.bodies] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("outcome", ["failed", "canceled", "aborted"])
def test_a_bad_end_is_told_too(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver, outcome: str
) -> None:
    identity = create(api, receiver)
    simulator.end(identity, outcome)
    assert [body["status"] for body in receiver.bodies] == [outcome]


def test_log_events_are_throttled(simulator: RunningSimulator, api: httpx.Client, receiver: Receiver) -> None:
    simulator.settings(webhook_throttle_s=60.0)
    create(api, receiver, "logs")
    for _ in range(5):
        simulator.advance(100)
    assert len(receiver.got) == 1


def test_only_the_last_event_is_tried_again_under_the_same_id(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.settings(webhook_retry_s=[0.0, 0.0])
    receiver.statuses = [500, 413, 503]
    create(api, receiver, "start", "completed")
    simulator.advance(100)
    simulator.advance(3000)
    assert [body["status"] for body in receiver.bodies] == ["processing", *["succeeded"] * 3]
    assert len({headers["webhook-id"] for headers, _ in receiver.got[1:]}) == 1
    outcomes = [one["outcome"] for one in simulator.read("webhooks")["deliveries"]]
    assert outcomes == ["200", "503", "413", "500"]


def test_attempts_end(simulator: RunningSimulator, api: httpx.Client, receiver: Receiver) -> None:
    simulator.settings(webhook_retry_s=[0.0])
    receiver.statuses = [500] * 9
    create(api, receiver, "completed")
    simulator.advance(3000)
    assert len(receiver.got) == 2
    assert simulator.read("webhooks")["waiting"] == 0


def test_redirects_are_not_followed(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.settings(webhook_retry_s=[])
    receiver.statuses = [302]
    create(api, receiver, "completed")
    simulator.advance(3000)
    assert len(receiver.got) == 1


def test_a_receiver_that_is_down_does_not_hold_up_anything(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    identity = create(api, Receiver(url="http://127.0.0.1:9/hook"), "completed")
    simulator.advance(3000)
    assert api.get(f"/v1/trainings/{identity}").json()["status"] == "succeeded"
    waiting = simulator.read("webhooks")
    assert (waiting["waiting"], waiting["deliveries"][0]["outcome"]) == (1, "ConnectError")


def test_a_lost_event_never_comes(simulator: RunningSimulator, api: httpx.Client, receiver: Receiver) -> None:
    simulator.fault("webhooks.send", "lost", match="completed")
    create(api, receiver, "output", "completed")
    simulator.advance(3000)
    assert len(receiver.got) == 1
    assert simulator.read("webhooks")["deliveries"][-1]["outcome"] == "lost"


def test_a_doubled_event_comes_twice_with_one_id(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.fault("webhooks.send", "doubled")
    create(api, receiver, "completed")
    simulator.advance(3000)
    first, second = (headers["webhook-id"] for headers, _ in receiver.got)
    assert first == second


def test_a_late_event_tells_a_state_long_past(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.fault("webhooks.send", "late", match="start", seconds=0.3)
    create(api, receiver, "start", "completed")
    simulator.advance(60)
    simulator.advance(3000)
    receiver.wait_for(2)
    assert [body["status"] for body in receiver.bodies] == ["succeeded", "processing"]


def test_a_reordered_event_comes_after_the_one_that_follows(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.fault("webhooks.send", "reordered", match="start", seconds=3600)
    create(api, receiver, "start", "completed")
    simulator.advance(60)
    assert receiver.got == []
    simulator.advance(3000)
    receiver.wait_for(2)
    assert [body["status"] for body in receiver.bodies] == ["succeeded", "processing"]


def test_a_forged_event_claims_success_and_fails_verification(
    simulator: RunningSimulator, api: httpx.Client, client: Client, receiver: Receiver
) -> None:
    simulator.fault("webhooks.send", "forged")
    create(api, receiver, "start")
    simulator.advance(60)
    verifier = Webhook(client.webhooks.default.secret().key)
    (forged_headers, forged_body), (headers, body) = receiver.got
    assert json.loads(forged_body)["status"] == "succeeded"
    with pytest.raises(WebhookVerificationError):
        verifier.verify(forged_body, forged_headers)
    assert verifier.verify(body, headers)["status"] == "processing"


def test_a_stale_event_is_well_signed_and_too_old(
    simulator: RunningSimulator, api: httpx.Client, client: Client, receiver: Receiver
) -> None:
    simulator.fault("webhooks.send", "stale")
    create(api, receiver, "completed")
    simulator.advance(3000)
    secret = client.webhooks.default.secret()
    headers, body = receiver.got[0]
    Webhooks.validate(headers=headers, body=body.decode(), secret=secret)
    with pytest.raises(InvalidTimestampError):
        Webhooks.validate(headers=headers, body=body.decode(), secret=secret, tolerance=300)


def test_bodies_of_several_megabytes_can_be_asked_for(
    simulator: RunningSimulator, api: httpx.Client, receiver: Receiver
) -> None:
    simulator.settings(log_lines=60_000)
    body = order(steps=6000) | {"webhook": receiver.url, "webhook_events_filter": ["completed"]}
    api.post(CREATE, json=body)
    simulator.advance(20_000)
    assert len(receiver.got[0][1]) > 600_000


def test_the_secret_is_that_of_the_account(api: httpx.Client) -> None:
    first, second = (api.get("/v1/webhooks/default/secret").json()["key"] for _ in range(2))
    assert first == second
    assert WebhookSigningSecret(key=first).key.startswith("whsec_")
