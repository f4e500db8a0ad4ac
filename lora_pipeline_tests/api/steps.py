"""What an application's front end does, step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline_tests.fixtures.photographs import drop_photographs

PROBLEM = "application/problem+json"


def upload(client: httpx.Client, photographs: Sequence[Path], **fields: str) -> dict[str, Any]:
    """Upload these files; the answer."""
    files = [("images", (path.name, path.read_bytes(), "image/jpeg")) for path in photographs]
    answer = client.post("/api/training/upload", files=files, data=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def uploaded_urls(client: httpx.Client, folder: Path, count: int = 5, first: int = 0) -> list[str]:
    """Upload so many photographs; their addresses."""
    urls: list[str] = upload(client, drop_photographs(folder, count, first=first))["imageUrls"]
    assert len(urls) == count
    return urls


def start(client: httpx.Client, urls: Sequence[str], name: str = "Anna", **fields: str) -> dict[str, Any]:
    """Start a training on these images; the answer."""
    body = {"modelName": name, "modelType": "person", "gender": "woman", "imageUrls": list(urls), **fields}
    answer = client.post("/api/training/start", json=body)
    assert answer.status_code in (201, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def progress(client: httpx.Client, model_id: str) -> dict[str, Any]:
    answer = client.get("/api/training/progress", params={"modelId": model_id})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def finish(connections: Connections, simulator: RunningSimulator) -> None:
    """What Dagster's sensors do, once everything at the provider has ended.

    A tick that meets the server's own look at the provider leaves the work to the next one, as in production.
    """
    simulator.advance(7200)
    deadline = time.monotonic() + 60
    while True:
        work = follow_and_find_work(connections)
        report = finalise_succeeded(connections, lease=work.lease, say=lambda _: None)
        assert not report.failures
        if report.done:
            return
        assert time.monotonic() < deadline, f"nothing was finished: {work}"


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of an answer that has to be a problem of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == status
    return str(body["detail"])
