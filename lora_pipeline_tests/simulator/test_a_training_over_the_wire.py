"""One training from creation to weights, through the provider's client and as plain JSON."""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any

import httpx
import pytest
from replicate.client import Client
from safetensors.numpy import load

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.simulator.conftest import CREATE, VERSION, order

STEP_LINE = re.compile(
    r"flux_train_replicate:\s+(\d+)%\|.{10}\| (\d+)/(\d+) \[[\d:]+<[\d:?]+, [\d.?]+(?:it/s|s/it), "
    r"lr: \d\.\de-\d\d loss: (\d\.\de[+-]\d\d)\]"
)
WHOLE_LIFE_S = 2000.0


def create(client: Client, **inputs: object) -> Any:
    body = order(**inputs)
    return client.trainings.create(
        model="ostris/flux-dev-lora-trainer",
        version=VERSION,
        input=body["input"],
        destination="acme/user-1-selfie-lora",
    )


def test_the_client_follows_a_training_to_its_weights(simulator: RunningSimulator, client: Client) -> None:
    training = create(client, lora_rank=8)
    assert training.status == "starting"
    simulator.advance(30)
    training.reload()
    assert training.status == "processing"
    simulator.advance(WHOLE_LIFE_S)
    training.reload()
    assert training.status == "succeeded"
    assert training.destination == "acme/user-1-selfie-lora"
    owner_and_name, _, text = training.output["version"].partition(":")
    assert owner_and_name == "acme/user-1-selfie-lora"
    assert re.fullmatch(r"[0-9a-f]{64}", text)
    latest = client.models.get("acme/user-1-selfie-lora").latest_version
    assert latest is not None
    assert latest.id == text
    assert text not in training.output["weights"]

    with tarfile.open(fileobj=io.BytesIO(httpx.get(training.output["weights"]).content)) as archive:
        assert archive.getnames()[0] == "output/flux_train_replicate/lora.safetensors"
        lora = archive.extractfile(archive.getnames()[0])
        assert lora is not None
        tensors = load(lora.read())
    down = tensors["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"]
    up = tensors["transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight"]
    assert down.shape[0] == up.shape[1] == 8


def test_a_new_training_lacks_what_is_not_known_yet(api: httpx.Client) -> None:
    made = api.post(CREATE, json=order())
    assert made.status_code == 201
    body = made.json()
    assert {"output", "metrics", "started_at", "completed_at", "destination"}.isdisjoint(body)
    assert body["status"] == "starting"
    assert body["urls"]["get"].endswith(f"/v1/predictions/{body['id']}")
    assert api.get(body["urls"]["get"]).json()["status"] == "starting"


def test_created_at_differs_between_the_creation_and_a_later_get(api: httpx.Client) -> None:
    made = api.post(CREATE, json=order()).json()
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert made["created_at"] != seen["created_at"]
    assert made["created_at"][:16] <= seen["created_at"][:16]


def test_version_is_the_trainers_and_destination_is_never_told(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    for seen in (
        api.get(f"/v1/trainings/{made['id']}").json(),
        api.get("/v1/trainings").json()["results"][0],
    ):
        assert seen["version"] == VERSION
        assert "destination" not in seen
        assert seen["output"]["version"].startswith("acme/user-1-selfie-lora:")


def test_list_items_carry_the_input_and_no_logs(simulator: RunningSimulator, api: httpx.Client) -> None:
    made = api.post(CREATE, json=order("token-7")).json()
    simulator.advance(500)
    item = api.get("/v1/trainings").json()["results"][0]
    assert item["id"] == made["id"]
    assert "token-7" in item["input"]["input_images"]
    assert "logs" not in item


def test_the_log_has_carriage_returns_other_bars_and_a_falling_loss(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    made = api.post(CREATE, json=order()).json()
    simulator.advance(400)
    half = api.get(f"/v1/trainings/{made['id']}").json()["logs"]
    last = STEP_LINE.findall(half)[-1]
    assert 0 < int(last[1]) < 1000 == int(last[2])
    simulator.advance(WHOLE_LIFE_S)
    log = api.get(f"/v1/trainings/{made['id']}").json()["logs"]
    lines = STEP_LINE.findall(log)
    assert [int(line[1]) for line in lines] == sorted(int(line[1]) for line in lines)
    assert lines[-1][:3] == ("100", "1000", "1000")
    losses = [float(line[3]) for line in lines]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert "\r" in log
    assert log.rindex("Uploading: 100%") > log.rindex("flux_train_replicate: 100%")
    assert "Caching latents: " in log
    assert log.startswith(half[:2000])


def test_metrics_tell_the_training_s_own_time_and_not_the_sped_up_wall(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    made = api.post(CREATE, json=order(steps=1500)).json()
    simulator.advance(10 * WHOLE_LIFE_S)
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert 1200 < seen["metrics"]["predict_time"] < 1800
    assert seen["metrics"]["predict_time"] < seen["metrics"]["total_time"]
    assert seen["created_at"] < seen["started_at"] < seen["completed_at"]


def test_a_failed_training_has_a_null_output_and_a_reason(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    made = api.post(CREATE, json=order()).json()
    reason = "Failed to create trained image after successful training run."
    simulator.end(made["id"], "failed", reason)
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert (seen["status"], seen["output"], seen["error"]) == ("failed", None, reason)
    assert api.get("/v1/models/acme/user-1-selfie-lora").json()["latest_version"] is None


def test_a_cancelled_training_stays_cancelled_and_leaves_no_version(
    simulator: RunningSimulator, client: Client
) -> None:
    training = create(client)
    training.cancel()
    assert training.status == "canceled"
    simulator.advance(WHOLE_LIFE_S)
    training.reload()
    assert training.status == "canceled"
    assert training.started_at is None
    assert client.models.get("acme/user-1-selfie-lora").latest_version is None


def test_cancelling_a_finished_training_changes_nothing(simulator: RunningSimulator, client: Client) -> None:
    training = create(client)
    simulator.end(training.id)
    assert client.trainings.cancel(training.id).status == "succeeded"


def test_the_same_training_delivers_the_same_bytes_and_another_different_tensors(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    ids = [api.post(CREATE, json=order()).json()["id"] for _ in range(2)]
    bodies = []
    for identity in ids:
        simulator.end(identity)
        url = api.get(f"/v1/trainings/{identity}").json()["output"]["weights"]
        bodies.append([httpx.get(url).content for _ in range(2)])
    assert bodies[0][0] == bodies[0][1]
    assert bodies[0][0] != bodies[1][0]


def test_weights_say_that_they_are_simulated(simulator: RunningSimulator, api: httpx.Client) -> None:
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    url = api.get(f"/v1/trainings/{made['id']}").json()["output"]["weights"]
    answer = httpx.get(url)
    assert answer.headers["lora-pipeline-simulator"] == "true"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        lora = archive.extractfile("output/flux_train_replicate/lora.safetensors")
        assert lora is not None
        size = int.from_bytes(lora.read(8), "little")
        metadata = json.loads(lora.read(size))["__metadata__"]
    assert metadata["simulated"] == "true"
    assert metadata["training_id"] == made["id"]


@pytest.mark.parametrize("path", ["/v1/trainings", "/v1/account", "/v1/nothing", "/simulator", "/nowhere"])
def test_every_answer_is_labelled_as_simulated(api: httpx.Client, path: str) -> None:
    assert api.get(path).headers["lora-pipeline-simulator"] == "true"


def test_what_was_paid_is_told_without_signatures(simulator: RunningSimulator, api: httpx.Client) -> None:
    for token in ("a", "b", "b"):
        api.post(CREATE, json=order(token))
    paid = simulator.paid()
    assert paid["count"] == 3
    assert paid["paid_twice"] == {"/submissions/b/images.zip": 2}
    assert "secret" not in json.dumps(paid)


def test_requests_are_counted_by_operation(simulator: RunningSimulator, api: httpx.Client) -> None:
    made = api.post(CREATE, json=order()).json()
    simulator.control("requests/reset")
    api.get("/v1/trainings")
    api.get(f"/v1/trainings/{made['id']}")
    api.get(f"/v1/trainings/{made['id']}")
    assert simulator.requests() == {"trainings.list": 1, "trainings.get": 2}


def test_data_is_removed_after_the_retention_time(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.settings(data_retention_s=3600.0)
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    assert api.get(f"/v1/trainings/{made['id']}").json()["data_removed"] is False
    simulator.advance(3700)
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert (seen["data_removed"], seen["input"], seen["output"], seen["logs"]) == (True, {}, None, "")


def test_weights_expire_where_a_lifetime_is_set(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.settings(weights_lifetime_s=3600.0)
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    url = api.get(f"/v1/trainings/{made['id']}").json()["output"]["weights"]
    assert httpx.head(url).status_code == 200
    simulator.advance(3700)
    assert httpx.get(url).status_code == 404
