"""The front end's flow against the whole stack: the HTTP server, Dagster's real daemon, S3 and the simulator.

Nothing is driven by the test but the requests. Afterwards every file that Dagster and the servers wrote is searched
for every secret and signed address that was used.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from lora_pipeline_tests.api.steps import progress, start, uploaded_urls
from lora_pipeline_tests.fixtures.s3 import start_s3_server

pytestmark = [pytest.mark.daemon, pytest.mark.deep, pytest.mark.timeout(900)]

SECRET = "whsec_" + base64.b64encode(b"callbacks of the daemon test ...").decode()
SIGNED = re.compile(rb"X-Amz-Signature=|X-Amz-Credential=|[?&]signature=[\w-]{20}")


@contextmanager
def application() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The application's own server: its address, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            Webhook(SECRET).verify(body, {name.lower(): value for name, value in self.headers.items()})
            told.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hooks?token=in-the-address", told
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running_stack(home: Path, callback_url: str) -> Iterator[dict[str, str]]:
    """`lora-pipeline up` on this home until the end of the block; its environment."""
    s3 = start_s3_server()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LORA_", "AWS_"))},
        **s3.env,
        "AWS_ENDPOINT_URL": s3.endpoint_url,
        "LORA_HOME": str(home),
        "LORA_OBJECT_STORE": f"s3://{s3.create_bucket()}/objects",
        "LORA_IMAGE_PROFILE": "demo",
        "LORA_POLL_INTERVAL": "3",
        "LORA_LEASE": "30",
        "LORA_CALLBACK_URL": callback_url,
        "LORA_CALLBACK_SECRET": SECRET,
    }
    log = home.parent / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_pipeline.cli.main", "up", "--simulator-speed", "120"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: process.poll() is not None or b"Ctrl-C" in log.read_bytes(), 300)
        assert process.poll() is None, log.read_text()
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def eventually(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to pass within {seconds:.0f} s"
        time.sleep(0.5)


def command(environment: dict[str, str], *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "lora_pipeline.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ended.stdout.strip()


def test_the_front_ends_flow_with_the_daemon_running_leaves_no_secret_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with application() as (callback_url, told), running_stack(home, callback_url) as environment:
        stack = json.loads((home / "stack.json").read_text())
        key = command(environment, "api-keys", "create", "phone", "--user", "42")
        with httpx.Client(
            base_url=stack["api_url"], headers={"Authorization": f"Bearer {key}"}, timeout=60
        ) as anna:
            urls = uploaded_urls(anna, tmp_path / "photos", 6)
            started = start(anna, urls)
            model_id = started["modelId"]
            seen: list[int] = []

            def completed() -> bool:
                found = progress(anna, model_id)
                seen.append(found["progress"])
                assert found["status"] in ("pending", "starting", "training", "completed"), found
                return bool(found["status"] == "completed")

            eventually(completed, 240)
            assert seen == sorted(seen)
            resolved = anna.get(f"/api/models/{model_id}/resolve").json()
            assert (resolved["version"], resolved["weightsState"]) == ("V1", "verified")
            assert len(httpx.get(resolved["weightsUrl"], timeout=60).content) > 1000

            seen.clear()
            assert start(anna, urls[:5])["trainingId"] != started["trainingId"]
            eventually(completed, 240)
            assert anna.get(f"/api/models/{model_id}/resolve").json()["version"] == "V2"
            synced = anna.post("/api/training/sync-version", json={"modelId": model_id}).json()
            assert synced["updateNeeded"] is False
            images = anna.get(f"/api/models/{model_id}/images").json()
            sheet, preview = images["contactSheetUrl"], images["images"][0]["previewUrl"]
            for link in (sheet, preview):
                assert httpx.get(link, timeout=60).status_code == 200
        eventually(lambda: sum(one["type"] == "version.changed" for one in told) == 2, 60)
        assert sum(one["type"] == "training.completed" for one in told) == 2
        # Dagster was told, so that its storage is worth searching.
        eventually(lambda: "lora_owed_events 0" in httpx.get(f"{stack['api_url']}/metrics").text, 120)

    secrets = [
        key,
        SECRET,
        "in-the-address",
        environment["AWS_SECRET_ACCESS_KEY"],
        resolved["weightsUrl"],
        sheet,
        preview,
    ]
    searched = 0
    for path in [tmp_path / "up.log", *home.rglob("*")]:
        # The simulator is the provider: it knows the addresses that it was given.
        if not path.is_file() or path.is_relative_to(home / "simulator"):
            continue
        content = path.read_bytes()
        searched += len(content)
        for secret in secrets:
            assert secret.encode() not in content, path
        assert not SIGNED.search(content), path
    assert searched > 100_000
