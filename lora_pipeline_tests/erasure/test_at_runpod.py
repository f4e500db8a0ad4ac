"""Erasing who was trained at RunPod: the bucket holds what the worker left, the provider keeps nothing that could be deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline.erasure.receipts import receipt
from lora_pipeline.settings import Settings
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline_tests.erasure.lives import USER, drop_user, found_in_database, traces
from lora_pipeline_tests.fixtures.runpod import RunPodBench


@pytest.fixture
def at_runpod(
    runpod: RunPodBench, database_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connections]:
    """An installation that trains everybody at RunPod."""
    for name, value in runpod.aws.items():
        monkeypatch.setenv(name, value)
    connections = Connections(
        Settings.model_validate(
            {
                "home": tmp_path / "home",
                "database_url": database_address,
                "object_store": runpod.store.root,
                "runpod_api_key": runpod.api_key,
                "runpod_endpoint": runpod.endpoint,
                "runpod_base_url": runpod.simulator.url,
                "provider": "runpod",
                "image_profile": "demo",
                "ready_images": 5,
                "ready_quiet": timedelta(0),
            }
        )
    )
    yield connections
    connections.database.close()


def test_what_the_worker_left_goes_too(at_runpod: Connections, runpod: RunPodBench) -> None:
    connections = at_runpod
    drop_user(connections)
    assert not start_ready(connections, lease=None).failures
    runpod.simulator.advance(7200)
    work = follow_and_find_work(connections, "runpod")
    finalise_succeeded(connections, lease=work.lease, say=print)
    (left,) = [info.key for info in connections.store.list("trained")]
    # A checkpoint that no row knows, as a worker may leave it beside its weights.
    connections.store.put_bytes(f"{left}.step-500", b"half trained")
    gone = traces(connections)

    erasure_id, _ = begin_erasure(connections, USER, "test")
    assert carry_out(connections, erasure_id, forget_partition=lambda _: True).completed

    assert list(connections.store.list()) == []
    assert found_in_database(connections, gone.names | gone.jobs) == set()
    with connections.database.read() as session:
        told = receipt(session, erasure_id)
    assert told["state"] == "completed"
    assert (told["deleted"]["weights"], told["deleted"]["folder"]) == (1, 1), (
        "our copy, and the folder of the worker"
    )
