"""Faults asked for through the control interface happen on the wire, as often as asked for."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time

import httpx
import pytest
from replicate.client import Client

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.weights import DAMAGES
from lora_pipeline_tests.simulator.conftest import CREATE, TOKEN, order


def test_a_connection_dropped_before_the_effect_pays_nothing(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("trainings.create", "drop", moment="before")
    with pytest.raises(httpx.TransportError):
        api.post(CREATE, json=order())
    assert simulator.paid()["count"] == 0
    assert api.post(CREATE, json=order()).status_code == 201


def test_a_connection_dropped_after_the_effect_has_paid(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("trainings.create", "drop", moment="after", times=2)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            api.post(CREATE, json=order("same"))
    assert simulator.paid()["paid_twice"] == {"/submissions/same/images.zip": 2}
    assert len(api.get("/v1/trainings").json()["results"]) == 2


@pytest.mark.parametrize(("moment", "paid"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize(("status", "body"), [(500, "problem"), (502, "html"), (503, "empty"), (504, "html")])
def test_an_error_answer_may_or_may_not_have_paid(
    simulator: RunningSimulator, api: httpx.Client, moment: str, paid: int, status: int, body: str
) -> None:
    simulator.fault("trainings.create", "answer", moment=moment, status=status, body=body)
    answer = api.post(CREATE, json=order())
    assert answer.status_code == status
    kind = {"problem": "application/problem+json", "html": "text/html; charset=utf-8", "empty": None}[body]
    assert answer.headers.get("content-type") == kind
    assert simulator.paid()["count"] == paid


def test_a_throttled_creation_names_its_wait_in_body_and_header(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("trainings.create", "answer", status=429, retry_after=7)
    answer = api.post(CREATE, json=order())
    assert answer.status_code == 429
    assert answer.json()["retry_after"] == 7
    assert "resets in ~7s" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "7"


def test_a_402_stops_the_next_creation_only(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.create", "answer", status=402)
    assert api.post(CREATE, json=order()).json()["title"] == "Insufficient credit"
    assert api.post(CREATE, json=order()).status_code == 201


def test_a_slow_answer_outlasts_the_client_and_the_training_exists(simulator: RunningSimulator) -> None:
    simulator.fault("trainings.create", "delay", moment="after", seconds=0.6)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            simulator.url + CREATE, json=order(), headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.2
        )
    assert simulator.paid()["count"] == 1


def test_a_request_can_land_after_the_client_has_given_up(simulator: RunningSimulator) -> None:
    simulator.fault("trainings.create", "delay", moment="before", seconds=0.5)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            simulator.url + CREATE, json=order(), headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.2
        )
    assert simulator.paid()["count"] == 0
    deadline = time.monotonic() + 5
    while simulator.paid()["count"] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert simulator.paid()["count"] == 1


def test_a_hanging_answer_never_comes(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.list", "hang")
    with pytest.raises(httpx.ReadTimeout):
        api.get("/v1/trainings", timeout=0.3)
    assert api.get("/v1/trainings").status_code == 200


def test_a_cut_body_is_a_transport_error(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.control("trainings", count=20)
    simulator.fault("trainings.list", "cut_body")
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("/v1/trainings")


def test_one_malformed_item_loses_the_client_s_page_and_not_the_raw_one(
    simulator: RunningSimulator, api: httpx.Client, client: Client
) -> None:
    simulator.control("trainings", count=10)
    simulator.fault("trainings.list", "malformed_item", times=2)
    with pytest.raises(ValueError, match="validation error"):
        client.trainings.list()
    results = api.get("/v1/trainings").json()["results"]
    assert len(results) == 11
    assert [item for item in results if item["id"] is None] == [{"id": None, "status": 7}]


def test_a_retry_after_of_hours_is_passed_on(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.get", "answer", status=503, retry_after=86_400)
    assert api.get("/v1/trainings/any").headers["retry-after"] == "86400"


def test_a_redirect_names_its_target(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.list", "answer", status=302, body="empty", location="http://evil.invalid/")
    answer = api.get("/v1/trainings", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "http://evil.invalid/")


def test_a_fault_can_be_aimed_at_one_training(simulator: RunningSimulator, api: httpx.Client) -> None:
    ids = [api.post(CREATE, json=order(str(n))).json()["id"] for n in range(2)]
    simulator.fault("trainings.get", "answer", match=ids[1], status=500)
    assert [api.get(f"/v1/trainings/{identity}").status_code for identity in ids] == [200, 500]


@pytest.mark.parametrize("status", ["aborted", "hibernating"])
def test_a_training_can_end_in_a_state_the_client_cannot_read(
    simulator: RunningSimulator, api: httpx.Client, client: Client, status: str
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"status": status})
    made = api.post(CREATE, json=order()).json()
    simulator.advance(3000)
    assert api.get(f"/v1/trainings/{made['id']}").json()["status"] == status
    with pytest.raises(ValueError, match="status"):
        client.trainings.get(made["id"])
    assert api.get("/v1/models/acme/user-1-selfie-lora").json()["latest_version"] is None


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("null_version", None),
        ("bare_hash", r"[0-9a-f]{64}"),
        ("model_hash", r"user-1-selfie-lora:[0-9a-f]{64}"),
    ],
)
def test_output_version_can_be_malformed(
    simulator: RunningSimulator, api: httpx.Client, output: str, version: str | None
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"output": output})
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    seen = api.get(f"/v1/trainings/{made['id']}").json()["output"]["version"]
    assert seen is None if version is None else re.fullmatch(version, seen)


def test_success_without_output_can_be_mended_later(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"output": "none"})
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert seen["status"] == "succeeded"
    assert "output" not in seen
    simulator.control(f"trainings/{made['id']}/quirks")
    assert "version" in api.get(f"/v1/trainings/{made['id']}").json()["output"]


def test_the_trainer_s_version_can_be_substituted(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"substituted_version": "b" * 64})
    assert api.post(CREATE, json=order()).json()["version"] == "b" * 64


@pytest.mark.parametrize(("where", "status"), [("starting", "starting"), ("processing", "processing")])
def test_a_stuck_training_never_ends_by_itself(
    simulator: RunningSimulator, api: httpx.Client, where: str, status: str
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"stuck_in": where})
    made = api.post(CREATE, json=order()).json()
    simulator.advance(10 * 86_400)
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert seen["status"] == status
    assert "100%|██████████| 1000/1000" not in seen["logs"]
    assert api.post(f"/v1/trainings/{made['id']}/cancel").json()["status"] == "canceled"


def test_a_log_at_100_percent_can_belong_to_a_failed_training(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"error": "Failed to push the image."})
    made = api.post(CREATE, json=order()).json()
    simulator.advance(3000)
    seen = api.get(f"/v1/trainings/{made['id']}").json()
    assert (seen["status"], seen["error"]) == ("failed", "Failed to push the image.")
    assert "1000/1000" in seen["logs"]


@pytest.mark.parametrize(("cancel", "status"), [("refused", 500), ("ignored", 200)])
def test_a_cancel_can_be_refused_or_ignored(
    simulator: RunningSimulator, api: httpx.Client, cancel: str, status: int
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"cancel": cancel})
    made = api.post(CREATE, json=order()).json()
    assert api.post(f"/v1/trainings/{made['id']}/cancel").status_code == status
    simulator.advance(3000)
    assert api.get(f"/v1/trainings/{made['id']}").json()["status"] == "succeeded"


def delivered(simulator: RunningSimulator, api: httpx.Client, damage: str) -> httpx.Response:
    simulator.fault("trainings.create", "quirk", quirk={"weights": damage})
    made = api.post(CREATE, json=order()).json()
    simulator.end(made["id"])
    return httpx.get(api.get(f"/v1/trainings/{made['id']}").json()["output"]["weights"])


def members(answer: httpx.Response) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        return archive.getnames()


def lora_of(answer: httpx.Response) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        member = archive.extractfile("output/flux_train_replicate/lora.safetensors")
        assert member is not None
        return member.read()


def test_damaged_weights_are_delivered_as_asked_for(simulator: RunningSimulator, api: httpx.Client) -> None:
    answers = {damage: delivered(simulator, api, damage) for damage in DAMAGES}
    assert answers["missing"].status_code == 404
    assert (answers["expired"].status_code, b"AccessDenied" in answers["expired"].content) == (403, True)
    assert answers["html"].content.startswith(b"<!doctype html>")
    assert sum(name.endswith(".safetensors") for name in members(answers["two_members"])) == 2
    assert members(answers["dotdot"])[0].startswith("../")
    assert not any(name.endswith(".safetensors") for name in members(answers["no_member"]))
    with pytest.raises(tarfile.ReadError):
        lora_of(answers["truncated"])
    assert lora_of(answers["not_safetensors"]).startswith(b"PK")
    assert int.from_bytes(lora_of(answers["header_too_long"])[:8], "little") > 100_000_000


def test_unknown_faults_are_refused_with_what_is_known(simulator: RunningSimulator) -> None:
    for body in (
        {"place": "trainings.destroy", "kind": "drop"},
        {"place": "trainings.create", "kind": "explode"},
        {"place": "trainings.list", "kind": "quirk"},
        {"place": "trainings.create", "kind": "quirk", "quirk": {"colour": "red"}},
        {"place": "trainings.create", "kind": "late"},
        {"place": "webhooks.send", "kind": "drop"},
    ):
        with pytest.raises(ValueError, match="refused"):
            simulator.control("faults", **body)
    assert simulator.read("faults") == {"waiting": [], "happened": {}}


def test_faults_wait_in_line_and_are_counted_when_they_happen(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("any", "answer", status=500)
    simulator.fault("trainings.list", "answer", status=502, times=2)
    assert len(simulator.read("faults")["waiting"]) == 2
    assert [api.get("/v1/trainings").status_code for _ in range(4)] == [500, 502, 502, 200]
    assert simulator.read("faults") == {"waiting": [], "happened": {"trainings.list answer": 3}}


def test_latency_is_added_to_each_request(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.settings(latency_ms=80)
    before = time.perf_counter()
    api.get("/v1/account")
    assert time.perf_counter() - before >= 0.08
    assert json.loads(api.get("/v1/account").content)["type"] == "organization"


def test_a_creation_whose_client_gives_up_during_the_latency_is_paid(simulator: RunningSimulator) -> None:
    simulator.settings(latency_ms=300)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            simulator.url + CREATE, json=order(), headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.1
        )
    deadline = time.monotonic() + 5
    while simulator.paid()["count"] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert simulator.paid()["count"] == 1
