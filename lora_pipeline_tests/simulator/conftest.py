"""A running simulator and clients of it, for the tests of this folder."""

from __future__ import annotations

import http.server
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from replicate.client import Client

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainers import FLUX_TRAINER, TRAINER_VERSIONS
from lora_pipeline_tests.simulator.runpod_calls import runpod_api

__all__ = ["runpod_api"]

TOKEN = "r8_test"
VERSION = TRAINER_VERSIONS[FLUX_TRAINER][0]
CREATE = f"/v1/models/{FLUX_TRAINER}/versions/{VERSION}/trainings"
JPEG = b"\xff\xd8\xff\xe0" + b"0" * 200


def zip_bytes(members: dict[str, bytes]) -> bytes:
    """A ZIP with these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def order(token: str = "t0", /, **more: object) -> dict[str, Any]:
    """The body of a creation that is accepted."""
    inputs = {
        "input_images": f"http://store.invalid/submissions/{token}/images.zip?X-Amz-Signature=secret",
        "steps": 1000,
    }
    return {"destination": "acme/user-1-selfie-lora", "input": inputs | more}


@pytest.fixture(scope="session")
def _server() -> Iterator[RunningSimulator]:
    with RunningSimulator(SimulatorSettings.for_tests(fetch_archives=False)) as running:
        yield running


@pytest.fixture
def simulator(_server: RunningSimulator) -> RunningSimulator:
    """A simulator whose time stands still, that fetches no ZIP, with one model to train and nothing else."""
    _server.reset()
    _server.control("versions", models={"acme/user-1-selfie-lora": []})
    return _server


@pytest.fixture
def api(simulator: RunningSimulator) -> Iterator[httpx.Client]:
    """Plain HTTP with a token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=simulator.url, headers=headers, verify=False) as client:
        yield client


@pytest.fixture
def client(simulator: RunningSimulator) -> Client:
    """The provider's own client."""
    return Client(api_token=TOKEN, base_url=simulator.url)


@dataclass
class Receiver:
    """A web server that keeps what it gets and answers with the statuses it was told, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 5
        while len(self.got) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.got) >= count, f"got {len(self.got)} deliveries, expected {count}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = found.statuses.pop(0) if found.statuses else 200
            self.send_response(status)
            if status in (301, 302):
                self.send_header("Location", found.url + "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    yield found
    server.shutdown()
    server.server_close()
