"""The answers held against the provider's own OpenAPI description, where a copy of it lies beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from lora_pipeline.simulator.operations import CALLS
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.trainers import FLUX_TRAINER
from lora_pipeline_tests.simulator.conftest import CREATE, VERSION, order

DESCRIPTION = Path(__file__).parents[3] / "shared" / "facts" / "replicate-openapi.json"
pytestmark = pytest.mark.skipif(
    not DESCRIPTION.is_file(), reason="no copy of the provider's description here"
)


def described() -> dict[str, Any]:
    found: dict[str, Any] = nullable(json.loads(DESCRIPTION.read_text()))
    return found


def nullable(node: Any) -> Any:
    """`nullable: true` (OpenAPI 3.0, used in this 3.1 document) as a type that JSON Schema understands."""
    if isinstance(node, list):
        return [nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: nullable(value) for key, value in node.items()}
    if found.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def check(answer: httpx.Response, path: str, method: str = "get") -> dict[str, Any]:
    """The answer against the schema of this path, method and status."""
    description = described()
    responses = description["paths"][path][method]["responses"]
    assert str(answer.status_code) in responses
    media = answer.headers["content-type"].split(";")[0]
    schema = responses[str(answer.status_code)]["content"][media]["schema"]
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    whole = schema | {"components": description["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=checker).validate(answer.json())
    body: dict[str, Any] = answer.json()
    return body


TRAINING = "/trainings/{training_id}"
MODEL = "/models/{model_owner}/{model_name}"


def test_trainings_in_every_state(simulator: RunningSimulator, api: httpx.Client) -> None:
    made = check(api.post(CREATE, json=order()), f"{MODEL}/versions/{{version_id}}/trainings", "post")
    check(api.get(f"/v1/trainings/{made['id']}"), TRAINING)
    simulator.advance(300)
    check(api.get(f"/v1/trainings/{made['id']}"), TRAINING)
    simulator.advance(3000)
    check(api.get(f"/v1/trainings/{made['id']}"), TRAINING)
    check(api.post(f"/v1/trainings/{made['id']}/cancel"), f"{TRAINING}/cancel", "post")
    simulator.control("trainings", count=150)
    page = check(api.get("/v1/trainings"), "/trainings")
    check(api.get(page["next"]), "/trainings")


def test_a_null_output_is_the_one_known_difference(simulator: RunningSimulator, api: httpx.Client) -> None:
    """Recorded failures carry `output: null`, which the description does not allow; everything else fits."""
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"], "failed")
    with pytest.raises(jsonschema.ValidationError) as caught:
        check(api.get(f"/v1/trainings/{made['id']}"), TRAINING)
    assert list(caught.value.absolute_path) == ["output"]


def test_models_and_versions(simulator: RunningSimulator, api: httpx.Client) -> None:
    body = {"owner": "acme", "name": "m", "visibility": "private", "hardware": "cpu", "description": "d"}
    check(api.post("/v1/models", json=body), "/models", "post")
    simulator.control("versions", models={"acme/m": ["c" * 64]})
    check(api.get("/v1/models/acme/m"), MODEL)
    check(api.get("/v1/models/acme/m/versions"), f"{MODEL}/versions")
    trainer = f"/v1/models/{FLUX_TRAINER}/versions/{VERSION}"
    check(api.get(trainer), f"{MODEL}/versions/{{version_id}}")


def test_account_files_hardware_secret_and_predictions(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    check(api.get("/v1/account"), "/account")
    check(api.get("/v1/hardware"), "/hardware")
    check(api.get("/v1/webhooks/default/secret"), "/webhooks/default/secret")
    made = check(api.post("/v1/files", files={"content": ("a.zip", b"1")}), "/files", "post")
    check(api.get("/v1/files"), "/files")
    check(api.get(f"/v1/files/{made['id']}"), "/files/{file_id}")
    check(api.get("/v1/files/nothing"), "/files/{file_id}")
    simulator.settings(file_cap_bytes=10)
    check(api.post("/v1/files", files={"content": ("a.zip", b"1" * 11)}), "/files", "post")
    simulator.control("versions", models={"acme/m": ["c" * 64]})
    picture = api.post("/v1/predictions", json={"version": "c" * 64, "input": {"prompt": "p"}})
    made = check(picture, "/predictions", "post")
    check(api.get(f"/v1/predictions/{made['id']}"), "/predictions/{prediction_id}")
    training = api.post(CREATE, json=order()).json()
    check(api.get(training["urls"]["get"]), "/predictions/{prediction_id}")


def test_every_call_that_is_counted_is_one_that_is_described() -> None:
    paths = described()["paths"]
    known = {
        (method.upper(), "/".join("*" if part.startswith("{") else part for part in path.split("/")))
        for path, methods in paths.items()
        for method in methods
    }
    ours = {(method, path.removeprefix("/v1")) for method, path, _ in CALLS if path.startswith("/v1/")}
    assert ours <= known
