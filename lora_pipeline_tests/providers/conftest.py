"""A simulated Replicate, and our provider pointed at it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lora_pipeline.providers.protocol import TrainingRequest
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.settings import SimulatorSettings

TOKEN = "r8_0123456789abcdefABCDEF"
DESTINATION = "acme/never-made-selfie-lora"
IMAGES = "https://store.example/submissions/3f2a/9c.zip?X-Amz-Signature=deadbeefcafe&X-Amz-Expires=9"
SETTINGS = SimulatorSettings.for_tests(api_token=TOKEN, fetch_archives=False)
_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def shared_simulator() -> Iterator[RunningSimulator]:
    with RunningSimulator(SETTINGS) as running:
        yield running


@pytest.fixture(scope="package")
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest.fixture
def simulator(shared_simulator: RunningSimulator, http: httpx.Client) -> RunningSimulator:
    """One server for all tests, because starting one takes longer than a test: faults, counts and settings are new,
    the trainings of other tests are not (each test has its own destination)."""
    http.delete(f"{shared_simulator.url}/simulator/faults")
    shared_simulator.control("requests/reset")
    shared_simulator.settings(**SETTINGS.model_dump(mode="json", include={"out_of_credit", "file_cap_bytes"}))
    return shared_simulator


@pytest.fixture
def provider(simulator: RunningSimulator) -> Iterator[ReplicateProvider]:
    with ReplicateProvider(simulator.url, TOKEN, timeout=5) as made:
        yield made


@pytest.fixture
def new_name() -> str:
    """A destination that no test has made."""
    return f"acme/user-{next(_numbers)}-selfie-lora"


@pytest.fixture
def destination(simulator: RunningSimulator, new_name: str) -> str:
    """A destination that exists."""
    simulator.control("versions", models={new_name: []})
    return new_name


def wanted(destination: str = DESTINATION, **inputs: object) -> TrainingRequest:
    """A request for a training with a presigned dataset address and whatever inputs a test adds."""
    given = {"input_images": IMAGES, "trigger_word": "user1", "steps": 1000, **inputs}
    return TrainingRequest(trainer=FLUX_TRAINER, destination=destination, input=given)


def paid(simulator: RunningSimulator, destination: str) -> list[dict[str, Any]]:
    """What was paid for one destination, oldest first."""
    return [one for one in simulator.paid()["trainings"] if one["destination"] == destination]
