"""The handler that docs/runpod_worker.md offers for copying keeps the contract that the provider relies on."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.providers.protocol import JobState
from lora_pipeline.providers.runpod_answers import parse_job
from lora_pipeline.providers.runpod_worker import worker_input, worker_input_schema
from lora_pipeline_tests.fixtures.runpod import DESTINATION, RunPodBench
from lora_pipeline_tests.providers.test_runpod_creation import JOB

PAGE = Path(__file__).parents[2] / "docs" / "runpod_worker.md"


def test_the_documented_handler_trains_once_and_leaves_what_is_looked_for(
    runpod: RunPodBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**runpod.server.env, "AWS_ENDPOINT_URL_S3": runpod.server.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    worker: dict[str, Any] = {"__name__": "worker"}
    exec(compile(source, str(PAGE), "exec"), worker)
    trained: list[list[str]] = []

    def train(job: dict[str, Any], images: Path, weights: Path) -> None:
        trained.append(sorted(path.name for path in images.iterdir()))
        weights.write_bytes(b"weights")

    worker["train"] = train
    request = runpod.request("documented")
    address = runpod.store.address(f"trained/documented/{DESTINATION}.safetensors")
    job = {"id": JOB, "input": worker_input(request, address)}

    outputs = [worker["handler"](job) for _ in range(2)]

    assert trained == [["000.jpg"]]
    assert outputs[0] == outputs[1]
    assert outputs[0]["model_info"]["size_bytes"] == 7
    found = runpod.provider.find_training("documented", DESTINATION)
    assert found is not None
    assert found.id == JOB
    said = parse_job({"id": JOB, "status": "COMPLETED", "output": outputs[0]}, timedelta(hours=3))
    assert (said.state, said.mark) == (JobState.SUCCEEDED, "documented")


def test_the_page_names_every_input() -> None:
    page = PAGE.read_text()
    named = set(worker_input_schema()["properties"]) | {"job_id", "dataset_url", "model_name", "s3_bucket"}
    assert [name for name in sorted(named) if f"`{name}`" not in page] == []
