"""With every logger at DEBUG: no library names an address that opens a door, quotes a request, or spells out EXIF."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from pydantic import SecretStr

from lora_pipeline.callbacks.alerting import alert
from lora_pipeline.connections import Connections
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainers import FLUX_TRAINER, TRAINER_VERSIONS
from lora_pipeline_tests.fixtures.http_receiver import HttpReceiver, receiving
from lora_pipeline_tests.fixtures.s3 import start_s3_server

SECRET = "in-the-address"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Everything that is logged, as in a new process whose root logger is at DEBUG."""
    for name in ("httpx", "httpcore", "botocore", "boto3", "s3transfer", "urllib3", "PIL"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text


def test_a_told_chat_is_not_named(log: Callable[[], str]) -> None:
    chat = HttpReceiver()
    with receiving(chat):
        connections = Connections(Settings(alert_url=SecretStr(chat.url)))
        assert alert(connections.settings, "a check fails")
    assert chat.taken
    assert SECRET not in log()


def test_requests_to_a_bucket_are_not_quoted(log: Callable[[], str]) -> None:
    server = start_s3_server()
    env = {**server.env, "AWS_ENDPOINT_URL": server.endpoint_url, "AWS_SESSION_TOKEN": "a-session-token"}
    Connections(Settings())
    assert list(Buckets(env)[server.create_bucket()].keys("")) == []
    assert "Signature=" not in log()
    assert "a-session-token" not in log()


def test_the_exif_of_a_photograph_is_not_spelt_out(log: Callable[[], str]) -> None:
    Connections(Settings())
    exif = Image.Exif()
    exif[Base.Artist] = "Anna Example"
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSDateStamp] = "2024:05:17"
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    assert Image.open(file).getexif()[Base.Artist] == "Anna Example"
    assert "Anna" not in log()


def test_a_simulator_names_neither_datasets_nor_webhooks(log: Callable[[], str], tmp_path: Path) -> None:
    receiver = HttpReceiver()
    with receiving(receiver), RunningSimulator(SimulatorSettings.for_tests(state=tmp_path)) as simulator:
        simulator.control("versions", models={"acme/user-1-selfie-lora": []})
        body = {
            "destination": "acme/user-1-selfie-lora",
            "input": {"input_images": f"{simulator.url}/dataset.zip?signature={SECRET}", "steps": 1000},
            "webhook": receiver.url,
        }
        path = f"/v1/models/{FLUX_TRAINER}/versions/{TRAINER_VERSIONS[FLUX_TRAINER][0]}/trainings"
        answer = httpx.post(f"{simulator.url}{path}", json=body, headers={"Authorization": "Bearer r8_test"})
        assert answer.status_code == 201, answer.text
        simulator.advance(7200)
    assert receiver.taken
    assert SECRET not in log()
