"""Nothing that opens a door is written down: no key, no signing secret, no signed address, in any log or table."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import inspect, text

from lora_pipeline.access.links import link_signer
from lora_pipeline.callbacks.sending import CallbacksFail, send_callbacks
from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.defs.events import as_dagster_event
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.outbox import claim
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import finish, start, uploaded_urls
from lora_pipeline_tests.fixtures.s3 import start_s3_server

TOKEN = "r8_a_token_that_nobody_may_see"
CALLBACK = "whsec_" + base64.b64encode(b"a callback secret nobody may see").decode()
HOOK = "whsec_" + base64.b64encode(b"a webhook secret nobody may see!").decode()
RUNPOD = "rpa_a_key_that_nobody_may_see"
IN_AN_ADDRESS = "password-in-the-callback-address"
SIGNED = re.compile(r"X-Amz-Signature=|X-Amz-Credential=|[?&]signature=[\w-]{20}")


@pytest.fixture
def connections(
    tmp_path: Path, database_address: str, simulator: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connections]:
    """Objects in S3, so that addresses are really presigned, and every secret there is."""
    server = start_s3_server()
    for name, value in {**server.env, "AWS_ENDPOINT_URL": server.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    for chatty in ("httpx", "httpcore"):
        # As in a new process.
        logging.getLogger(chatty).setLevel(logging.NOTSET)
    made = Connections(
        Settings(
            home=tmp_path / "home",
            database_url=database_address,
            object_store=f"s3://{server.create_bucket()}/objects",
            replicate_api_token=SecretStr(TOKEN),
            replicate_base_url=simulator.url,
            replicate_webhook_secret=SecretStr(HOOK),
            runpod_api_key=SecretStr(RUNPOD),
            runpod_endpoint="endpoint",
            runpod_base_url="http://127.0.0.1:1",
            callback_url=f"http://127.0.0.1:1/?token={IN_AN_ADDRESS}",
            callback_secret=SecretStr(CALLBACK),
            image_profile="demo",
        )
    )
    (tmp_path / "home" / "inbox").mkdir(parents=True)
    yield made
    made.database.close()


def everything_stored(database: Database) -> str:
    """Every row of every table but the one whose business it is to keep a secret."""
    names = inspect(database.engine).get_table_names()
    with database.read() as session:
        rows = [
            str(dict(row))
            for name in names
            for row in session.execute(text(f'SELECT * FROM "{name}"')).mappings()
            if not (name == "controls" and row["name"] == "link signing")
        ]
    return "\n".join(rows)


def test_no_secret_and_no_signed_address_is_logged_stored_or_given_to_dagster(
    connections: Connections, simulator: RunningSimulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="lora_pipeline")
    # As an operator may set it: at this level httpx names every address that is asked.
    caplog.set_level(logging.INFO)
    key = key_for(connections, "42")
    runpod_hook = str(connections.settings.runpod_webhook_secret)
    shown: list[str] = []
    with serving(connections) as anyone, with_key(anyone, key) as anna:
        model_id = start(anna, uploaded_urls(anna, tmp_path / "photos"))["modelId"]
        finish(connections, simulator)
        resolved = anna.get(f"/api/models/{model_id}/resolve").json()
        assert "X-Amz-Signature" in resolved["weightsUrl"]
        assert httpx.get(resolved["weightsUrl"]).status_code == 200
        link = anna.get(f"/api/models/{model_id}/images").json()["contactSheetUrl"]
        assert anyone.get(link).status_code == 200
        preview = anna.get(f"/api/models/{model_id}/images").json()["images"][0]["previewUrl"]
        assert anyone.get(preview).status_code == 200
        job = {"id": "0b1d1a3e-0000-4000-8000-000000000000-u1", "status": "COMPLETED"}
        shown += [
            anyone.post(f"/webhooks/runpod/{secret}", json=body).text
            for secret, body in ((runpod_hook, job), (runpod_hook, []), (runpod_hook[:-1], job))
        ]
        shown += [anna.get(path).text for path in (f"/api/models/{model_id}/versions", "/metrics", "/readyz")]
        shown += [
            anyone.get(path, headers={"Authorization": f"Bearer {key}x"}).text
            for path in ("/api/models", f"/api/models/{model_id}/resolve")
        ]
        shown.append(anna.post("/api/training/start", json={"modelName": "B", "imageUrls": [link] * 5}).text)
    with pytest.raises(CallbacksFail) as trouble:
        send_callbacks(connections)
    batch = claim(connections.database)
    assert batch is not None
    dagster = "".join(str(as_dagster_event(event, "http://127.0.0.1:8010")) for event in batch.events)

    secret = base64.b64encode(link_signer(connections.database, connections.now())._secret).decode()
    secrets = [TOKEN, CALLBACK, HOOK, RUNPOD, runpod_hook, key, secret, IN_AN_ADDRESS]
    secrets += [resolved["weightsUrl"], link, preview]
    written = {
        "log": caplog.text,
        "tables": everything_stored(connections.database),
        "dagster": dagster,
        "answers": "".join(shown),
        "error": str(trouble.value),
    }
    for place, content in written.items():
        assert content, place
        for one in secrets:
            assert one not in content, place
        assert not SIGNED.search(content), place
