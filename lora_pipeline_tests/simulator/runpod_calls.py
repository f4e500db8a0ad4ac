"""RunPod's calls as a client without a library makes them, for the tests of its simulated half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lora_pipeline.objects import ObjectNotFound
from lora_pipeline.providers.runpod import weights_key
from lora_pipeline_tests.fixtures.runpod import DESTINATION, ENDPOINT, RUNPOD_KEY, RunPodBench

RUN = f"/v2/{ENDPOINT}/run"
POLICY = {"executionTimeout": 10_800_000, "ttl": 86_400_000}


@pytest.fixture
def runpod_api(runpod: RunPodBench) -> Iterator[httpx.Client]:
    """Plain HTTP with the key."""
    headers = {"Authorization": f"Bearer {RUNPOD_KEY}"}
    with httpx.Client(base_url=runpod.simulator.url, headers=headers, verify=False) as client:
        yield client


def order(runpod: RunPodBench, token: str = "t1", **inputs: object) -> dict[str, Any]:
    """The body of a `/run` for a training of half an hour."""
    given = {
        "job_id": token,
        "dataset_url": runpod.dataset(),
        "model_name": DESTINATION,
        "training_type": "style",
        "s3_bucket": runpod.store.root.removeprefix("s3://").split("/")[0],
        "s3_key": f"lora/{weights_key(token, DESTINATION)}",
        "class_tokens": "style1",
        "max_train_steps": 2000,
        "network_dim": 8,
        "network_alpha": 4,
    }
    return {"input": given | inputs, "policy": POLICY}


def run(api: httpx.Client, body: dict[str, Any]) -> str:
    answer = api.post(RUN, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def status(api: httpx.Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/v2/{ENDPOINT}/status/{job}").json()
    return found


def has_object(runpod: RunPodBench, token: str = "t1") -> bool:
    try:
        runpod.weights(token)
    except ObjectNotFound:
        return False
    return True
