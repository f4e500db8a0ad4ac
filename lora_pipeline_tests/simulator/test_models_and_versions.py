"""Models and versions: made once, deleted under the provider's conditions."""

from __future__ import annotations

import httpx
import pytest
from replicate.client import Client

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.trainers import FLUX_TRAINER
from lora_pipeline_tests.simulator.conftest import CREATE, VERSION, order

MODEL = {"owner": "acme", "name": "user-2-selfie-lora", "visibility": "private", "hardware": "gpu-h100"}
PATH = "/v1/models/acme/user-2-selfie-lora"


def test_a_model_is_created_once(api: httpx.Client) -> None:
    made = api.post("/v1/models", json=MODEL)
    assert made.status_code == 201
    assert made.json()["latest_version"] is None
    again = api.post("/v1/models", json=MODEL)
    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"owner": "somebody"}, 403),
        ({"name": "Not Allowed"}, 422),
        ({"visibility": "secret"}, 422),
        ({"hardware": "abacus"}, 422),
        ({"hardware": None}, 422),
    ],
)
def test_a_model_with_wrong_parts_is_refused(
    api: httpx.Client, changes: dict[str, object], status: int
) -> None:
    assert api.post("/v1/models", json=MODEL | changes).status_code == status
    assert api.get(PATH).status_code == 404


def test_the_trainer_tells_its_input_schema(client: Client) -> None:
    version = client.models.get(FLUX_TRAINER).versions.get(VERSION)
    schema = version.openapi_schema["components"]["schemas"]["TrainingInput"]
    assert schema["required"] == ["input_images"]
    assert schema["properties"]["steps"]["default"] == 1000
    assert (schema["properties"]["steps"]["minimum"], schema["properties"]["steps"]["maximum"]) == (3, 6000)
    assert "num_repeats" not in schema["properties"]
    assert len(client.models.get(FLUX_TRAINER).versions.list().results) == 2


def test_a_model_can_be_deleted_only_when_its_versions_are_gone(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    api.post("/v1/models", json=MODEL)
    made = api.post(CREATE, json=order() | {"destination": "acme/user-2-selfie-lora"}).json()
    simulator.end(made["id"])
    output = api.get(f"/v1/trainings/{made['id']}").json()["output"]
    version = f"{PATH}/versions/{output['version'].partition(':')[2]}"
    assert api.delete(PATH).status_code == 400
    assert api.delete(version).status_code == 202
    assert api.get(version).status_code == 200, "a deletion takes minutes"
    assert api.delete(PATH).status_code == 400
    simulator.advance(180)
    assert api.get(version).status_code == 404
    assert httpx.get(output["weights"]).status_code == 404
    assert api.delete(PATH).status_code == 204
    assert api.get(PATH).status_code == 404
    assert api.post("/v1/models", json=MODEL).status_code == 201


def test_public_models_and_those_of_others_cannot_be_deleted(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    api.post("/v1/models", json=MODEL | {"visibility": "public"})
    assert api.delete(PATH).status_code == 400
    simulator.settings(refused_deletion_status=403)
    assert api.delete(f"/v1/models/{FLUX_TRAINER}/versions/{VERSION}").status_code == 403
    assert api.get(f"/v1/models/{FLUX_TRAINER}").status_code == 200


def test_a_burned_name_is_taken_and_not_found(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.settings(burn_deleted_names=True)
    api.post("/v1/models", json=MODEL)
    api.delete(PATH)
    assert api.post("/v1/models", json=MODEL).status_code == 409
    assert api.get(PATH).status_code == 404
    simulator.control("models/acme/other/burn")
    assert api.post("/v1/models", json=MODEL | {"name": "other"}).status_code == 409
    assert api.get("/v1/models/acme/other").status_code == 404


def test_the_account_and_the_hardware_satisfy_the_client(client: Client) -> None:
    assert client.accounts.current().username == "acme"
    assert "gpu-h100" in {hardware.sku for hardware in client.hardware.list()}
