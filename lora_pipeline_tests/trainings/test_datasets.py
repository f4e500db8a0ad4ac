"""Which datasets are deleted: those of trainings that have ended, and never one that a trainer may still read."""

from __future__ import annotations

from io import BytesIO

import httpx

from lora_pipeline.database.sessions import Database
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.datasets import delete_ended_datasets
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, run_row, tiny_zip


def kept(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("submissions")}


def test_only_the_datasets_of_ended_trainings_go(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    runs = {state: add_packed_run(database, store, f"m-{state}", state=state) for state in TrainingState}
    assert delete_ended_datasets(database, store, provider, clock()) == len(TERMINAL)
    rows = {state: run_row(database, run) for state, run in runs.items()}
    assert kept(store) == {row.zip_key for state, row in rows.items() if state not in TERMINAL}
    for state, row in rows.items():
        assert (row.zip_deleted_at is not None) == (row.dataset_zip_url is None) == (state in TERMINAL), state
    assert delete_ended_datasets(database, store, provider, clock()) == 0


def test_the_datasets_of_another_provider_are_left_to_its_own_tick(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    add_packed_run(database, store, state="failed", provider="runpod")
    assert delete_ended_datasets(database, store, provider, clock()) == 0
    assert len(kept(store)) == 1


def test_what_was_handed_to_the_provider_goes_too(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    copy = provider.upload_file("dataset.zip", BytesIO(tiny_zip()))
    add_packed_run(database, store, state="failed", provider_file_id=copy.id)
    address, headers = f"{simulator.url}/v1/files/{copy.id}", {"Authorization": "Bearer r8_test"}
    assert httpx.get(address, headers=headers).status_code == 200
    assert delete_ended_datasets(database, store, provider, clock()) == 1
    assert httpx.get(address, headers=headers).status_code == 404


def test_ours_goes_although_the_provider_cannot_be_asked_to_delete_its_copy(
    database: Database, store: ObjectStore, clock: Clock
) -> None:
    add_packed_run(database, store, state="failed", provider_file_id="file")
    with ReplicateProvider("http://127.0.0.1:1", "r8_test", timeout=1.0) as away:
        assert delete_ended_datasets(database, store, away, clock()) == 1
    assert kept(store) == set()
