"""A running simulator and clients of it, for the tests of this folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from replicate.client import Client

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainers import FLUX_TRAINER, TRAINER_VERSIONS

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
