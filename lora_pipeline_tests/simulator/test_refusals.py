"""Every refusal in the provider's own shape, and nothing paid by any of them."""

from __future__ import annotations

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.trainers import FLUX_TRAINER
from lora_pipeline_tests.simulator.conftest import CREATE, TOKEN, VERSION, order


def problem(answer: httpx.Response) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert body["status"] == answer.status_code
    return body


@pytest.mark.parametrize("header", [None, "Bearer", "Basic abc", "Bearer wrong"])
def test_without_a_valid_token_nothing_is_answered(simulator: RunningSimulator, header: str | None) -> None:
    simulator.settings(api_token="right")
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.post(simulator.url + CREATE, json=order(), headers=headers)
    assert problem(answer) == {
        "title": "Unauthenticated",
        "detail": "You did not pass a valid authentication token",
        "status": 401,
    }
    assert simulator.paid()["count"] == 0


def test_a_destination_that_does_not_exist_is_a_404_without_a_title(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    for destination in ("acme/nothing", "somebody/else", "no-slash"):
        answer = api.post(CREATE, json=order() | {"destination": destination})
        assert problem(answer) == {
            "detail": "The specified training destination does not exist",
            "status": 404,
        }
    assert simulator.paid()["count"] == 0


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/models/{FLUX_TRAINER}/versions/{'0' * 64}/trainings",
        f"/v1/models/{FLUX_TRAINER}/versions/26dce37a/trainings",
        f"/v1/models/{FLUX_TRAINER}/versions/flux-dev-lora-trainer:{VERSION}/trainings",
        f"/v1/models/acme/user-1-selfie-lora/versions/{VERSION}/trainings",
    ],
)
def test_an_unknown_trainer_version_is_a_422(
    simulator: RunningSimulator, api: httpx.Client, path: str
) -> None:
    body = problem(api.post(path, json=order()))
    assert (body["status"], body["title"]) == (422, "Invalid version or not permitted")
    assert simulator.paid()["count"] == 0


@pytest.mark.parametrize(
    ("inputs", "kind", "field", "words"),
    [
        ({"steps": 7000}, "number_lte", "input.steps", "Must be less than or equal to 6000"),
        ({"steps": 2}, "number_gte", "input.steps", "Must be greater than or equal to 3"),
        ({"steps": "many"}, "invalid_type", "input.steps", "Invalid type. Expected: integer, given: string"),
        ({"steps": True}, "invalid_type", "input.steps", "Invalid type. Expected: integer, given: boolean"),
        ({"lora_rank": 129}, "number_lte", "input.lora_rank", "Must be less than or equal to 128"),
        (
            {"caption_dropout_rate": 1.5},
            "number_lte",
            "input.caption_dropout_rate",
            "Must be less than or equal to 1",
        ),
        (
            {"autocaption": "yes"},
            "invalid_type",
            "input.autocaption",
            "Invalid type. Expected: boolean, given: string",
        ),
        ({"input_images": "not a url"}, "format", "input.input_images", "Does not match format 'uri'"),
    ],
)
def test_a_bad_input_is_named_field_by_field(
    simulator: RunningSimulator,
    api: httpx.Client,
    inputs: dict[str, object],
    kind: str,
    field: str,
    words: str,
) -> None:
    body = problem(api.post(CREATE, json=order(**inputs)))
    assert body["title"] == "Input validation failed"
    assert body["detail"] == f"- {field}: {words}\n"
    assert body["invalid_fields"] == [{"type": kind, "field": field, "description": words}]
    assert simulator.paid()["count"] == 0


def test_a_missing_zip_is_required(api: httpx.Client) -> None:
    body = problem(api.post(CREATE, json={"destination": "acme/user-1-selfie-lora", "input": {}}))
    assert body["detail"] == "- input: input_images is required\n"
    assert problem(api.post(CREATE, json={}))["status"] == 422
    assert problem(api.post(CREATE, content=b"{"))["status"] == 400


def test_an_unknown_input_is_ignored_unless_it_is_to_be_refused(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    assert api.post(CREATE, json=order(num_repeats=20)).status_code == 201
    simulator.settings(refuse_unknown_inputs=True)
    body = problem(api.post(CREATE, json=order(num_repeats=20)))
    assert "num_repeats" in str(body["detail"])


def test_without_credit_a_creation_is_a_402_that_pays_nothing(
    simulator: RunningSimulator, client: Client
) -> None:
    simulator.settings(out_of_credit=True)
    with pytest.raises(ReplicateError) as caught:
        client.trainings.create(
            model=FLUX_TRAINER,
            version=VERSION,
            input=order()["input"],
            destination="acme/user-1-selfie-lora",
        )
    assert (caught.value.status, caught.value.title) == (402, "Insufficient credit")
    assert simulator.paid()["count"] == 0


def test_creations_and_other_requests_are_throttled_apart(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.settings(create_per_minute=2, others_per_minute=100)
    made = [api.post(CREATE, json=order(str(n))) for n in range(3)]
    assert [answer.status_code for answer in made] == [201, 201, 429]
    body = problem(made[2])
    wait = body["retry_after"]
    assert isinstance(wait, int)
    assert 1 <= wait <= 60
    assert f"Your rate limit resets in ~{wait}s." in str(body["detail"])
    assert made[0].headers["ratelimit-remaining"] == "1"
    assert api.get("/v1/trainings").status_code == 200
    assert simulator.paid()["count"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/trainings/nothing",
        "/v1/models/acme/nothing",
        "/v1/models/acme/nothing/versions",
        "/v1/files/nothing",
    ],
)
def test_what_does_not_exist_is_a_404(api: httpx.Client, path: str) -> None:
    assert problem(api.get(path))["status"] == 404


def test_a_cursor_that_is_not_ours_is_refused(api: httpx.Client) -> None:
    assert problem(api.get("/v1/trainings?cursor=%FF%FF"))["status"] == 400
    assert problem(api.get("/v1/trainings?cursor=cD14"))["status"] == 400


@pytest.mark.parametrize(
    ("spelling", "status"),
    [("{hash}", 201), ("acme/m:{hash}", 201), ("m:{hash}", 422), ("acme/other:{hash}", 422), ("acme/m", 422)],
)
def test_predictions_take_a_bare_hash_or_the_full_spelling(
    simulator: RunningSimulator, api: httpx.Client, spelling: str, status: int
) -> None:
    text = "a" * 64
    simulator.control("versions", models={"acme/m": [text]})
    version = spelling.format(hash=text)
    answer = api.post("/v1/predictions", json={"version": version, "input": {"prompt": "x"}})
    assert answer.status_code == status
    if status == 201:
        assert api.get(answer.json()["urls"]["get"]).json()["status"] == "succeeded"


def test_the_status_for_a_version_without_an_owner_is_a_setting(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.settings(model_hash_status=404)
    answer = api.post("/v1/predictions", json={"version": f"m:{'a' * 64}", "input": {}})
    assert answer.status_code == 404


def test_an_unknown_setting_is_refused_by_name(simulator: RunningSimulator) -> None:
    with pytest.raises(ValueError, match="sped"):
        simulator.settings(sped=3)


def test_the_token_is_asked_for_on_every_path_of_the_interface(simulator: RunningSimulator) -> None:
    for path in ("/v1/trainings", "/v1/account", "/v1/files", "/v1/anything"):
        assert httpx.get(simulator.url + path).status_code == 401
    assert httpx.get(simulator.url + "/v1/account", headers={"Authorization": f"Bearer {TOKEN}"}).is_success
