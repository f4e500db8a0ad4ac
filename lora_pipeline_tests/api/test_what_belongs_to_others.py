"""Another user's things: whatever route is asked, they do not exist, and nothing becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_pipeline.callbacks.listing import list_callbacks
from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.api.every_route import Operation, description, operations
from lora_pipeline_tests.api.serving import key_for, with_key
from lora_pipeline_tests.api.steps import finish, start, uploaded_urls
from lora_pipeline_tests.fixtures.pipeline import add_model

ABOUT_NOTHING = {
    "GET /api/models",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
    "POST /webhooks/replicate",
}
"""What a user may ask without meaning a certain thing."""
ADMINISTRATORS = "/api/admin/"


@dataclass(frozen=True)
class Owned:
    """A user's model, trained once, and all that has a name there."""

    client: httpx.Client
    values: Mapping[str, Any]
    lineage: tuple[str, ...]
    """Ids that lineage takes."""

    def as_it_is(self) -> list[Any]:
        model = f"/api/models/{self.values['model']}"
        seen = [
            self.client.get(f"{model}/{what}").json()
            for what in ("versions", "history", "trainings", "images")
        ]
        return [_without_links(one) for one in seen]


def _without_links(value: Any) -> Any:
    """Links are signed anew each time."""
    if isinstance(value, dict):
        return {name: _without_links(one) for name, one in value.items() if not name.endswith("Url")}
    return [_without_links(one) for one in value] if isinstance(value, list) else value


@pytest.fixture
def owned(connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path) -> Owned:
    urls = uploaded_urls(anna, tmp_path)
    started = start(anna, urls)
    finish(connections, simulator)
    model = started["modelId"]
    (training,) = anna.get(f"/api/models/{model}/trainings").json()["trainings"]
    (version,) = anna.get(f"/api/models/{model}/versions").json()["versions"]
    images = anna.get(f"/api/models/{model}/images").json()
    values = {
        "model": model,
        "modelId": model,
        "version": "V1",
        "run": training["run"],
        "run_id": training["run"],
        "image_set_id": images["imageSet"],
        "sha256": images["images"][0]["sha256"],
        "number": 1,
        "id": model,
        "job_id": "0" * 32,
        "event_id": list_callbacks(connections.database, "all")[0]["event_id"],
        "imageUrls": urls,
        "user": "42",
        "secret": "guessed",
    }
    nodes = [node["id"] for node in anna.get(f"/api/lineage/{model}").json()["nodes"]]
    names = (f"{model}:V1", started["trainingId"], version["sha256"], version["providerVersion"])
    return Owned(anna, values, (*nodes, *names))


def test_whatever_is_asked_about_anothers_things_is_refused_and_changes_nothing(
    connections: Connections, anyone: httpx.Client, owned: Owned
) -> None:
    before = owned.as_it_is()
    described = description()
    about_nothing = set()
    nowhere = {**owned.values, "model": "user-00", "modelId": "user-00", "id": "user-00"}
    pairs = zip(operations(described, owned.values), operations(described, nowhere), strict=True)
    with with_key(anyone, key_for(connections, "43")) as other:
        for operation, about_nobody in pairs:
            if not operation.named - {"userId"}:
                about_nothing.add(str(operation))
                continue
            answer = operation.ask(other)
            guarded_otherwise = operation.path.startswith((ADMINISTRATORS, "/weights/", "/webhooks/"))
            expected = {403, 404} if guarded_otherwise else {404}
            assert answer.status_code in expected, (str(operation), answer.text)
            if operation.named & {"model", "modelId", "id"} and not guarded_otherwise:
                missed = about_nobody.ask(other).text
                assert missed == answer.text.replace(owned.values["model"], "user-00"), (
                    "the same words for both"
                )
            if operation.method == "GET" and not guarded_otherwise:
                mine = operation.ask(owned.client)
                assert mine.status_code == 200, f"{operation} asks for nothing that is there"
                kept = mine.headers.get("cache-control", "")
                assert "public" not in kept, operation
                kind = mine.headers["content-type"]
                assert "private" in kept or "image" not in kind, operation
                if "svg" in kind:
                    assert "default-src 'none'" in mine.headers["content-security-policy"]
        assert about_nothing - {str(one) for one in _administrators(described)} == ABOUT_NOTHING
        for found in owned.lineage:
            assert owned.client.get(f"/api/lineage/{found}").status_code == 200, found
            assert other.get(f"/api/lineage/{found}").status_code == 404, found
    assert owned.as_it_is() == before


_ON_SQLITE = pytest.mark.parametrize("database_address", ["sqlite"], indirect=True)
"""Where nothing depends on the database."""


@_ON_SQLITE
def test_a_user_is_told_nothing_of_others_and_cannot_act_for_them(
    connections: Connections, anyone: httpx.Client, owned: Owned
) -> None:
    with with_key(anyone, key_for(connections, "43")) as other:
        assert other.get("/api/models").json() == {"models": []}
        assert other.get("/api/models", params={"userId": "42"}).json() == {"models": []}
        assert "no active model" in other.post("/api/training/sync-version", json={}).json()["detail"]
        body = {"modelName": "Anna", "imageUrls": owned.values["imageUrls"]}
        assert "no upload" in other.post("/api/training/start", json=body).json()["detail"]
        assert other.post("/api/training/start", json={**body, "userId": "42"}).status_code == 403
        files = [("images", ("a.jpg", b"x", "image/jpeg"))]
        assert other.post("/api/training/upload", files=files, data={"userId": "42"}).status_code == 403
        for operation in _administrators(description()):
            assert operation.ask(other).status_code == 403, str(operation)


@_ON_SQLITE
@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_the_number_of_anothers_training_means_nothing_to_ones_own_model(
    connections: Connections, anyone: httpx.Client, anna: httpx.Client, tmp_path: Path, action: str
) -> None:
    started = start(anna, uploaded_urls(anna, tmp_path))
    seen = f"/api/models/{started['modelId']}/trainings"
    (before,) = anna.get(seen).json()["trainings"]
    add_model(connections.database, "bens")
    with with_key(anyone, key_for(connections, "bens")) as ben:
        answer = ben.post(f"/api/models/bens/{action}", json={"run": before["run"]})
    assert answer.status_code == 404, answer.text
    (after,) = anna.get(seen).json()["trainings"]
    assert (after["state"], after["status"]) == (before["state"], before["status"])


@_ON_SQLITE
def test_without_a_key_nothing_is_told(anyone: httpx.Client, owned: Owned) -> None:
    """Pictures are the exception on a server that only this machine can reach: Dagster's pages link them."""
    for operation in operations(description(), owned.values):
        if not operation.guarded or operation.path in ("/metrics", *_PICTURES):
            continue
        answer = operation.ask(anyone)
        assert answer.status_code == 401, (str(operation), answer.text)
        assert answer.headers["www-authenticate"] == "Bearer"
    unguarded = {one.path for one in operations(description(), owned.values) if not one.guarded}
    assert not [path for path in unguarded if path.startswith("/api/")]


_PICTURES = ("/contact-sheets/{image_set_id}.jpg", "/loss-curves/{run_id}.png", "/api/lineage/{id}/picture")


def _administrators(described: Mapping[str, Any]) -> list[Operation]:
    values = {"user": "42", "job_id": "0" * 32, "event_id": "evt_none"}
    anything = dict.fromkeys(
        ("model", "version", "run_id", "image_set_id", "sha256", "number", "id", "secret"), "1"
    )
    return [
        one for one in operations(described, {**anything, **values}) if one.path.startswith(ADMINISTRATORS)
    ]


TRICKS = [
    "..",
    "%2e%2e",
    "..%2fuser-42",
    "user-42%00",
    "user-42/../user-42",
    "%25",
    "user_42",
    "USER-42",
    "user-42%20",
    "user-4%32%0a",
    "user-４２",
    "42",
    "%",
    "_",
]


@_ON_SQLITE
def test_path_tricks_lead_nowhere(connections: Connections, anyone: httpx.Client, owned: Owned) -> None:
    with with_key(anyone, key_for(connections, "43")) as other:
        for trick in TRICKS:
            for path in (f"/api/models/{trick}/versions", f"/api/training/progress?modelId={trick}"):
                assert other.get(path).status_code in (400, 404, 422), path
            assert other.get(f"/weights/{trick}/1.safetensors").status_code in (403, 404), trick
            assert other.get(f"/api/lineage/{trick}").status_code in (400, 404, 422), trick
