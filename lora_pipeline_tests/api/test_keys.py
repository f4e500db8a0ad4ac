"""Keys: made, stored as hashes, revoked, and what a scope reaches."""

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
from lora_pipeline_tests.api.steps import problem, start, uploaded_urls


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
