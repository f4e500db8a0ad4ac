"""Who is answered what: keys, their scope, and everything that belongs to somebody else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from lora_pipeline.access.keys import KeyRefused, create_key, revoke_key
from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import finish, problem, start, uploaded_urls

GUARDED = [
    ("POST", "/api/training/upload"),
    ("POST", "/api/training/start"),
    ("GET", "/api/training/progress?modelId={model}"),
    ("POST", "/api/training/sync-version"),
    ("GET", "/api/models"),
    ("GET", "/api/models/{model}/resolve"),
    ("GET", "/api/models/{model}/versions"),
    ("GET", "/api/models/{model}/versions/1/weights"),
    ("GET", "/api/models/{model}/history"),
    ("GET", "/api/models/{model}/trainings"),
    ("GET", "/api/models/{model}/images"),
    ("PATCH", "/api/models/{model}/images"),
    ("POST", "/api/models/{model}/activate"),
    ("POST", "/api/models/{model}/pin"),
    ("POST", "/api/models/{model}/unpin"),
    ("POST", "/api/models/{model}/rollback"),
    ("POST", "/api/models/{model}/cancel"),
    ("POST", "/api/models/{model}/retry"),
    ("GET", f"/api/uploads/{'a' * 64}/a.jpg"),
    ("GET", "/api/admin/training/sync-status"),
    ("POST", "/api/admin/training/bulk-sync"),
    ("GET", "/api/admin/training/bulk-sync/1"),
]
BODIES = {
    "/api/training/sync-version": {"modelId": "{model}"},
    "/api/models/{model}/images": {"name": "photo 00.jpg", "choice": "exclude"},
    "/api/models/{model}/activate": {"version": "V1"},
}


def ask(client: httpx.Client, method: str, template: str, model: str = "user-42") -> httpx.Response:
    path = template.replace("{model}", model)
    if method == "GET" or path == "/api/training/upload":
        return client.request(method, path)
    body = {name: text.replace("{model}", model) for name, text in BODIES.get(template, {}).items()}
    return client.request(method, path, json=body)


def test_without_a_key_nothing_is_told(anyone: httpx.Client) -> None:
    for method, path in GUARDED:
        answer = ask(anyone, method, path)
        assert answer.status_code in (401, 422), (method, path, answer.text)
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
    described = anyone.get("/openapi.json").json()["paths"]
    guarded = {
        path for path, operations in described.items() for one in operations.values() if "security" in one
    }
    assert {path for path in described if path.startswith("/api/")} <= guarded


def test_a_wrong_a_foreign_and_a_revoked_key_are_refused(
    connections: Connections, anyone: httpx.Client
) -> None:
    key = key_for(connections, "42")
    with with_key(anyone, key) as client:
        assert client.get("/api/models").status_code == 200
        assert revoke_key(connections.database, "42", actor="test", now=datetime.now(UTC))
        assert "revoked" in problem(client.get("/api/models"), 401)
    for wrong in ("lora_", key[:-1], key + "x", "ü" * 43, "Bearer"):
        headers = {b"Authorization": b"Bearer " + wrong.encode("latin-1")}
        assert anyone.get("/api/models", headers=headers).status_code == 401


def test_a_key_is_nowhere_in_the_database(connections: Connections) -> None:
    key = key_for(connections, "42")
    with connections.database.read() as session:
        rows = [
            *session.execute(text("SELECT * FROM api_keys")),
            *session.execute(text("SELECT * FROM audit_log")),
        ]
    assert len(rows) == 2
    assert key not in str(rows)
    assert key.removeprefix("lora_") not in str(rows)


def test_a_name_is_given_once_so_that_the_audit_log_means_one_key(connections: Connections) -> None:
    key_for(connections, "42", "phone")
    revoke_key(connections.database, "phone", actor="test", now=datetime.now(UTC))
    with pytest.raises(KeyRefused, match="Choose another name"):
        create_key(connections.database, "phone", user_id="43", actor="test", now=datetime.now(UTC))


def test_what_belongs_to_another_does_not_exist(
    connections: Connections,
    simulator: RunningSimulator,
    anyone: httpx.Client,
    anna: httpx.Client,
    tmp_path: Path,
) -> None:
    urls = uploaded_urls(anna, tmp_path)
    model_id = start(anna, urls)["modelId"]
    finish(connections, simulator)
    run = anna.get(f"/api/models/{model_id}/trainings").json()["trainings"][0]["run"]
    sheet = anna.get(f"/api/models/{model_id}/images").json()["contactSheetUrl"]
    with with_key(anyone, key_for(connections, "43")) as other:
        for method, path in GUARDED:
            if "{model}" not in path and path not in BODIES:
                continue
            answer = ask(other, method, path, model_id)
            assert answer.status_code == 404, (method, path, answer.text)
            unknown = ask(other, method, path, "user-00")
            assert unknown.text == answer.text.replace(model_id, "user-00"), "the same words for both"
        assert other.get("/api/models").json() == {"models": []}
        assert other.get("/api/models", params={"userId": "42"}).json() == {"models": []}
        assert other.get(httpx.URL(urls[0]).path).status_code == 404
        stolen = other.post("/api/training/start", json={"modelName": "Anna", "imageUrls": urls})
        assert "no upload" in problem(stolen, 404)
        body = {"modelName": "Anna", "imageUrls": urls, "userId": "42"}
        assert other.post("/api/training/start", json=body).status_code == 403
        assert other.get(httpx.URL(sheet).path).status_code == 404
        assert other.get(f"/loss-curves/{run}.png").status_code == 404
        assert anyone.get(httpx.URL(f"/weights/{model_id}/1.safetensors")).status_code == 403
        for path in ("/api/admin/training/sync-status", "/api/admin/training/bulk-sync/1"):
            assert other.get(path).status_code == 403


TRICKS = [
    "..",
    "%2e%2e",
    "..%2fuser-42",
    "user-42%00",
    "user-42/../user-42",
    "%25",
    "user_42",
    "USER-42",
    "42",
    "%",
    "_",
]


def test_path_tricks_lead_nowhere(
    connections: Connections, anyone: httpx.Client, anna: httpx.Client, tmp_path: Path
) -> None:
    start(anna, uploaded_urls(anna, tmp_path))
    with with_key(anyone, key_for(connections, "43")) as other:
        for model in TRICKS:
            assert other.get(f"/api/models/{model}/versions").status_code in (404, 422), model
            assert other.get(f"/api/training/progress?modelId={model}").status_code in (404, 422), model


def test_an_administrator_reaches_every_model_and_says_whose_a_new_one_is(
    simulator: RunningSimulator, anna: httpx.Client, admin: httpx.Client, tmp_path: Path
) -> None:
    model_id = start(anna, uploaded_urls(anna, tmp_path))["modelId"]
    assert admin.get(f"/api/models/{model_id}/trainings").status_code == 200
    assert (
        admin.get("/api/training/progress", params={"modelId": "42"}).json()["model"]["modelId"] == model_id
    )
    urls = admin.get("/api/models").json()
    assert [model["modelId"] for model in urls["models"]] == [model_id]
    missing = admin.post(
        "/api/training/start", json={"modelName": "B", "imageUrls": ["https://x.example/1.jpg"] * 5}
    )
    assert "userId" in problem(missing, 422)


def test_too_many_requests_with_one_key_wait_and_others_do_not(connections: Connections) -> None:
    connections.settings.api_rate = 1
    with serving(connections) as anyone:
        greedy, modest = (with_key(anyone, key_for(connections, user)) for user in ("42", "43"))
        with greedy, modest:
            answers = [greedy.get("/api/models") for _ in range(8)]
            refused = [answer for answer in answers if answer.status_code == 429]
            assert refused
            assert int(refused[0].headers["retry-after"]) >= 1
            assert problem(refused[0], 429)
            assert modest.get("/api/models").status_code == 200


def test_guessing_keys_is_slowed_down(anyone: httpx.Client) -> None:
    guesses = (
        anyone.get("/api/models", headers={"Authorization": f"Bearer lora_{number}"}).status_code
        for number in range(200)
    )
    assert next(guesses) == 401
    assert 429 in guesses
