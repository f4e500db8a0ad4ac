"""Trainings at RunPod, which lists no jobs and forgets results: over real HTTP and a real bucket, the decisive ones on both databases."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import uvicorn

from lora_pipeline.api.app import create_app
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import (
    ArtifactLocation,
    ModelVersion,
    OutboxEvent,
    TrainingRun,
    VersionAlias,
)
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.inventory.bucket_inventory import take_inventory
from lora_pipeline.inventory.registering import register_found
from lora_pipeline.settings import Settings, SettingsError
from lora_pipeline.trainings.deciding import DecisionRefused, adopt_training, resubmit_training
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.hints import handle_hints
from lora_pipeline.trainings.retrying import retry_now
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline.trainings.webhooks import runpod_delivery, store_delivery
from lora_pipeline.versions.resolve import resolve
from lora_pipeline.versions.sync_status import sync_status
from lora_pipeline.versions.version_lookup import find_version
from lora_pipeline.versions.why import why
from lora_pipeline_tests.fixtures.photographs import drop_photographs
from lora_pipeline_tests.fixtures.pipeline import model_row
from lora_pipeline_tests.fixtures.runpod import RunPodBench

KEY = "style_1"
FOR_EVER = timedelta(days=3)


@dataclass
class House:
    """A project that trains at RunPod, with a clock that the test moves together with the simulator's."""

    connections: Connections
    bench: RunPodBench
    ahead: timedelta = timedelta(0)

    def advance(self, **duration: float) -> None:
        """Let time pass for the provider and for us."""
        step = timedelta(**duration)
        self.bench.simulator.advance(step.total_seconds())
        self.ahead += step

    def submit(self) -> TrainingRun:
        """Photographs of a style, and one batch that starts what is ready."""
        drop_photographs(self.connections.settings.home / "inbox" / KEY, 5, picture="coffee.png")
        (self.connections.settings.home / "inbox" / KEY / "model.toml").write_text('model_type = "style"\n')
        start_ready(self.connections, lease=None)
        return self.run()

    def tick(self) -> TrainingRun:
        """One status tick, and the finalising batch if it asked for one."""
        work = follow_and_find_work(self.connections, "runpod")
        if work.lease:
            finalise_succeeded(self.connections, lease=work.lease, say=print)
        return self.run()

    def run(self) -> TrainingRun:
        with self.connections.database.read() as session:
            return session.query(TrainingRun).order_by(TrainingRun.id.desc()).limit(1).one()

    def version(self) -> ModelVersion:
        with self.connections.database.read() as session:
            return session.query(ModelVersion).one()

    def deliver(self, job: dict[str, Any]) -> None:
        """A webhook as RunPod sends it, stored as the server stores it."""
        import json

        body = json.dumps(job).encode()
        store_delivery(self.connections.database, "runpod", runpod_delivery(body), self.connections.now())


@pytest.fixture
def house(
    runpod: RunPodBench, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """On SQLite: what a database does for any provider is shown with Replicate."""
    path = tmp_path / "lora.sqlite3"
    shutil.copyfile(sqlite_template, path)
    yield from _house(runpod, f"sqlite:///{path}", tmp_path, monkeypatch)


@pytest.fixture
def house_anywhere(
    runpod: RunPodBench, database_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """On both databases."""
    yield from _house(runpod, database_address, tmp_path, monkeypatch)


def _house(
    runpod: RunPodBench, database_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    for name, value in runpod.aws.items():
        monkeypatch.setenv(name, value)
    made = Connections(_settings(runpod, database_address, tmp_path))
    (made.settings.home / "inbox").mkdir(parents=True)
    house = House(made, runpod)
    real_now = made.now
    monkeypatch.setattr(made, "now", lambda: real_now() + house.ahead)
    yield house
    made.database.close()


def _settings(runpod: RunPodBench, database_address: str, tmp_path: Path, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "home": tmp_path / "home",
        "database_url": database_address,
        "object_store": runpod.store.root,
        "runpod_api_key": runpod.api_key,
        "runpod_endpoint": runpod.endpoint,
        "runpod_base_url": runpod.simulator.url,
        "replicate_api_token": "r8_test",
        "replicate_base_url": runpod.simulator.url,
        "style_provider": "runpod",
        "image_profile": "demo",
        "ready_images": 5,
        "ready_quiet": timedelta(0),
    }
    return Settings(**(given | changes))


def test_a_style_goes_from_photographs_to_a_served_version(house_anywhere: House) -> None:
    house = house_anywhere
    run = house.submit()
    assert (run.provider, run.state, run.destination) == ("runpod", "submitted", "style_1_vV1")
    assert run.parameters["class_tokens"] == run.trigger_word
    assert run.parameters["training_type"] == "style"
    house.advance(minutes=10)
    assert house.tick().state == "running"
    assert 0 < house.run().progress < 99, "the worker's own log line"
    house.advance(minutes=25)
    done = house.tick()
    assert (done.state, done.progress) == ("finalised", 100)
    assert house.bench.paid(run.token) == 1

    version = house.version()
    assert (version.number, version.provider, version.provider_version) == (1, "runpod", None)
    assert version.weights_state == "verified"
    assert str(version.weights_url).startswith(f"{house.bench.store.root}/loras/style_1/")
    served = resolve(house.connections, KEY)
    assert (served.version, served.trigger_word) == (1, run.trigger_word)
    model = model_row(house.connections.database, KEY)
    assert (model.training_status, model.replicate_version_id) == ("completed", None)
    assert done.cost is not None
    assert done.zip_deleted_at is not None, "photographs do not outlive their training"
    with house.connections.database.read() as session:
        events = {(event.asset_key, event.event_id) for event in session.query(OutboxEvent)}
    assert ("runpod_training", f"training:{run.id}:submitted") in events
    assert ("trained_lora", f"lora:{run.id}") in events


def test_a_lora_that_was_registered_by_hand_meanwhile_stays_one_version(house_anywhere: House) -> None:
    house = house_anywhere
    run = house.submit()
    house.advance(hours=2)
    store = house.connections.store
    (left,) = [info.key for info in store.list("trained")]
    # A copy without what the worker wrote into the object's metadata.
    store.put_bytes("loras/found/style_1_vV4.safetensors", store.get_bytes(left))
    take_inventory(house.connections)
    address = store.address("loras/found/style_1_vV4.safetensors")
    register_found(house.connections, KEY, [address], actor="cli:ops")

    assert house.tick().state == "finalised"
    version = house.version()
    assert (version.number, version.training_run_id, version.parameters) == (4, run.id, run.parameters)
    assert resolve(house.connections, KEY).version == 4


def test_a_version_from_runpod_goes_by_its_job_and_by_its_object(house: House) -> None:
    run = house.submit()
    house.advance(hours=1)
    house.tick()
    job, left = str(house.run().training_id), str(house.run().output_artifact_url)
    assert left == f"{house.bench.store.root}/trained/{run.token}/style_1_vV1.safetensors"
    with house.connections.database.read() as session:
        model = model_row(house.connections.database, KEY)
        for name in (job, left, "style_1_vV1", "V1"):
            assert find_version(session, model, name).number == 1
        kinds = {alias.kind for alias in session.query(VersionAlias)}
        assert session.query(ArtifactLocation).count() == 1
    assert kinds == {"training_id", "object"}


def test_a_model_at_runpod_is_nobody_for_replicates_drift_report(house: House) -> None:
    house.submit()
    house.advance(hours=1)
    house.tick()
    assert sync_status(house.connections).rows == ()


def test_why_holds_a_model_at_runpod_against_the_bucket(house: House) -> None:
    house.submit()
    house.advance(hours=1)
    house.tick()
    fine = why(house.connections, KEY)
    assert (fine.drift.verdict.value, fine.provider["name"], fine.next_command) == (
        "up_to_date",
        "runpod",
        None,
    )
    house.connections.store.delete(str(house.connections.store.key_of(str(house.version().weights_url))))
    gone = why(house.connections, KEY)
    assert (gone.drift.verdict.value, gone.next_command) == (
        "weights_missing",
        f"lora-pipeline versions {KEY}",
    )
    assert not any("lora-pipeline sync" in text for text in gone.advice)


def test_lost_webhook_and_expired_result_leave_the_object_to_prove_it(house_anywhere: House) -> None:
    house = house_anywhere
    run = house.submit()
    house.advance(hours=3)
    status = httpx.get(
        f"{house.bench.simulator.url}/v2/{house.bench.endpoint}/status/{run.training_id}",
        headers={"Authorization": f"Bearer {house.bench.api_key}"},
    )
    assert status.status_code == 404, "the result is gone"
    assert house.tick().state == "finalised"


def test_a_training_cut_off_after_ten_minutes_has_failed_and_says_why(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.connections.settings, "runpod_execution_timeout", timedelta(minutes=10))
    house.submit()
    house.advance(minutes=20)
    run = house.tick()
    assert run.state == "failed"
    assert "timed out after" in str(run.error)
    assert model_row(house.connections.database, KEY).training_status == "failed"


def test_completed_without_output_is_a_success_where_the_object_is_there(house: House) -> None:
    house.bench.quirk(output="none")
    house.submit()
    house.advance(minutes=50)
    assert house.tick().state == "finalised"


def test_completed_without_an_object_waits_and_is_held_once_nobody_knows_more(house: House) -> None:
    house.bench.quirk(output="none", upload="skipped")
    house.submit()
    house.advance(minutes=50)
    assert house.tick().state == "succeeded", "the provider's word registers nothing"
    assert house.tick().state == "succeeded"
    house.advance(minutes=40)
    run = house.tick()
    assert run.state == "held"
    assert "--retry | --abandon" in str(run.hold_reason)
    assert model_row(house.connections.database, KEY).replicate_version_id is None


def test_weights_that_come_late_are_found_when_a_held_training_is_retried(house: House) -> None:
    house.bench.quirk(upload="skipped")
    run = house.submit()
    house.advance(minutes=50)
    house.tick()
    house.advance(minutes=40)
    assert house.tick().state == "held"
    other = house.bench.provider.create_training(house.bench.request("another", destination=run.destination))
    house.advance(hours=1)
    house.bench.store.put_bytes(
        f"trained/{run.token}/{run.destination}.safetensors", house.bench.weights("another", run.destination)
    )
    assert other.id
    retried, sent = retry_now(house.connections, run.id, "test")
    assert (retried.new_attempt, sent) == (False, None)
    assert house.tick().state == "finalised"


def test_ok_false_is_a_failure_with_its_reason(house: House) -> None:
    house.bench.quirk(output="error", upload="skipped")
    house.submit()
    house.advance(minutes=50)
    run = house.tick()
    assert (run.state, run.error) == ("failed", "CUDA error: out of memory")


def test_weights_left_before_a_failure_are_what_was_paid_for(house: House) -> None:
    house.bench.quirk(error="the disk was full at clean-up", upload="despite_failure")
    house.submit()
    house.advance(minutes=50)
    assert house.tick().state == "finalised"


def test_another_runs_object_under_our_key_is_not_taken(house: House) -> None:
    house.bench.quirk(metadata="other_token")
    house.submit()
    house.advance(minutes=50)
    assert house.tick().state == "succeeded"


def test_a_damaged_object_is_held_and_never_served(house: House) -> None:
    house.bench.quirk(upload="truncated")
    house.submit()
    house.advance(minutes=50)
    for _ in range(6):
        house.tick()
        house.advance(minutes=2)
    run = house.run()
    assert run.state == "held"
    assert "weights were not accepted" in str(run.hold_reason)


def test_an_unanswered_submission_is_settled_by_the_object_that_carries_its_token(
    house_anywhere: House,
) -> None:
    house = house_anywhere
    house.bench.simulator.fault("runpod.run", "drop", moment="after")
    run = house.submit()
    assert (run.state, run.training_id) == ("intent", None)
    assert house.tick().state == "intent", "nothing shows it yet, and nothing is sent again"
    house.advance(minutes=20)
    assert house.tick().state == "held", "a person is asked while nothing proves it"
    house.advance(minutes=40)
    done = house.tick()
    assert done.state == "finalised"
    assert done.training_id, "the object says which job left it"
    assert house.bench.paid(run.token) == 1


def test_an_unanswered_submission_is_settled_by_a_webhook_of_its_job(house_anywhere: House) -> None:
    house = house_anywhere
    house.bench.simulator.fault("runpod.run", "drop", moment="after")
    run = house.submit()
    house.advance(minutes=5)
    job = house.bench.simulator.paid_jobs()["jobs"][0]["id"]
    house.deliver({"id": job, "status": "IN_PROGRESS", "output": {"job_id": run.token}})
    moved = house.tick()
    assert (moved.state, moved.training_id) == ("running", job)
    assert house.bench.paid(run.token) == 1


def test_a_forged_webhook_gives_nobody_elses_job_to_a_run(house: House) -> None:
    foreign = house.bench.provider.create_training(house.bench.request("somebody-else"))
    house.bench.simulator.fault("runpod.run", "drop", moment="before")
    run = house.submit()
    house.advance(minutes=5)
    house.deliver({"id": foreign.id, "status": "COMPLETED", "output": {"job_id": run.token}})
    assert house.tick().training_id is None


def test_what_never_arrived_is_held_and_sent_again_only_by_a_person(house: House) -> None:
    house.bench.simulator.fault("runpod.run", "drop", moment="before")
    run = house.submit()
    house.advance(minutes=20)
    held = house.tick()
    assert held.state == "held"
    assert "nothing with its token was found" in str(held.hold_reason)
    connections = house.connections
    resubmit_training(connections.database, connections.runpod, run.id, "test", connections.now)
    start_ready(connections, lease=None)
    assert house.run().state == "submitted"
    assert house.bench.paid(run.token) == 1


def test_automatic_resubmission_never_touches_a_provider_without_a_list(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.connections.settings, "auto_resubmit_after", timedelta(seconds=1))
    house.bench.simulator.fault("runpod.run", "drop", moment="after")
    run = house.submit()
    house.advance(minutes=20)
    assert house.tick().state == "held"
    start_ready(house.connections, lease=None)
    assert house.bench.paid(run.token) == 1


def test_a_person_can_name_the_job_of_an_unanswered_submission(house: House) -> None:
    foreign = house.bench.provider.create_training(house.bench.request("somebody-else"))
    house.bench.simulator.fault("runpod.run", "drop", moment="after")
    run = house.submit()
    house.advance(minutes=16)
    house.tick()
    jobs = house.bench.simulator.paid_jobs()["jobs"]
    ours = next(job["id"] for job in jobs if job["id"] != foreign.id)
    connections = house.connections
    with pytest.raises(DecisionRefused, match="not this run's"):
        adopt_training(connections.database, connections.runpod, run.id, foreign.id, "test", connections.now)
    adopt_training(connections.database, connections.runpod, run.id, ours, "test", connections.now)
    house.advance(hours=1)
    assert house.tick().state == "finalised"


def test_a_job_that_nobody_knows_any_more_is_lost_and_not_failed(house: House) -> None:
    house.bench.quirk(vanishes_after_s=300, upload="skipped")
    house.submit()
    house.advance(minutes=10)
    assert house.tick().state == "submitted", "a 404 this early may be lag"
    house.advance(minutes=25)
    assert house.tick().state == "lost"
    house.advance(minutes=20)
    assert house.tick().state == "lost"


def test_weights_bring_a_lost_training_back(house: House) -> None:
    house.bench.quirk(vanishes_after_s=300)
    house.submit()
    house.advance(seconds=1900)
    before = house.tick().state
    house.advance(minutes=50)
    assert house.tick().state == "finalised", before


def test_a_webhook_with_the_suffix_that_our_id_lacks_is_about_our_job(house_anywhere: House) -> None:
    house = house_anywhere
    run = house.submit()
    job = str(run.training_id)
    base = job[:36]
    with house.connections.database.begin() as session:
        session.get_one(TrainingRun, run.id).training_id = base
    house.advance(minutes=50)
    house.deliver({"id": job, "status": "COMPLETED"})
    connections = house.connections
    report = handle_hints(connections.database, connections.runpod, connections.now, 10)
    assert [change.after for change in report.moved] == ["succeeded"]


def test_a_cancel_ends_it_at_the_provider(house: House) -> None:
    from lora_pipeline.trainings.cancelling import Cancel, cancel_training

    run = house.submit()
    connections = house.connections
    result = cancel_training(connections.database, connections.runpod, run.id, "test", connections.now)
    assert result.outcome is Cancel.CANCELED
    house.advance(hours=2)
    assert house.tick().state == "canceled"


def test_webhooks_come_to_an_address_that_nobody_can_guess(house: House) -> None:
    with _served(house.connections) as url:
        secret = house.connections.settings.runpod_webhook_secret
        assert secret is not None
        assert len(secret) == 64
        assert house.bench.api_key not in secret
        run = house.submit()
        with house.connections.database.read() as session:
            job = session.get_one(TrainingRun, run.id).training_id
        house.advance(minutes=50)
        body = {"id": job, "status": "COMPLETED"}
        assert httpx.post(f"{url}/webhooks/runpod/{'0' * 64}", json=body).status_code == 404
        assert httpx.post(f"{url}/webhooks/runpod/é", json=body).status_code == 404
        assert house.run().state == "submitted"
        answer = httpx.post(f"{url}/webhooks/runpod/{secret}", json=body)
        assert answer.json() == {"received": True, "new": True}
        _eventually(lambda: house.run().state == "succeeded")
        again = httpx.post(f"{url}/webhooks/runpod/{secret}", json=body)
        assert again.json() == {"received": True, "new": False}
        for bad in (b"[]", b"{", b'{"id": 3, "status": "COMPLETED"}'):
            assert httpx.post(f"{url}/webhooks/runpod/{secret}", content=bad).status_code == 400


def test_an_unknown_jobs_webhook_is_kept_until_a_run_has_the_job(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    job = "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"
    house.deliver({"id": job, "status": "COMPLETED"})
    connections = house.connections
    handle_hints(connections.database, connections.runpod, connections.now, 10)
    assert f"Version not found for job ID: {job}" in caplog.text
    run = house.submit()
    with connections.database.begin() as session:
        session.get_one(TrainingRun, run.id).training_id = job
    report = handle_hints(connections.database, connections.runpod, connections.now, 10)
    assert report.handled == 1


def test_a_folder_is_no_place_for_a_workers_weights(house: House, tmp_path: Path) -> None:
    settings = _settings(house.bench, "sqlite://", tmp_path, object_store=str(tmp_path / "objects"))
    with pytest.raises(SettingsError, match=r"Set LORA_OBJECT_STORE=s3://BUCKET/PREFIX"):
        _ = Connections(settings).runpod


def test_half_of_the_settings_name_the_other_half(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LORA_RUNPOD_ENDPOINT"):
        Settings(home=tmp_path, runpod_api_key="rpa_x").runpod_connection()
    with pytest.raises(SettingsError, match="RUNPOD_API_KEY"):
        Settings(home=tmp_path, runpod_endpoint="abc").runpod_connection()
    assert Settings(home=tmp_path).runpod_webhook_secret is None


def test_materialised_by_hand_it_is_submitted_by_its_own_asset_alone(house: House) -> None:
    folder = house.connections.settings.home / "inbox" / KEY
    drop_photographs(folder, 5, picture="coffee.png")
    (folder / "model.toml").write_text('model_type = "style"\n')
    settings = house.connections.settings
    assert settings.runpod_api_key is not None
    overrides = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "object_store": settings.object_store,
        "runpod_api_key": settings.runpod_api_key.get_secret_value(),
        "runpod_endpoint": settings.runpod_endpoint,
        "runpod_base_url": settings.runpod_base_url,
        "style_provider": "runpod",
        "image_profile": "demo",
    }
    defs = build_defs({"pipeline": Pipeline(overrides=overrides)}, Settings())
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("models", [KEY])
        result = defs.resolve_job_def("train_model").execute_in_process(instance=instance, partition_key=KEY)
    keys = [event.asset_key for event in result.get_asset_materialization_events()]
    done = [key.to_user_string() for key in keys if key]
    assert done == ["uploaded_image_set", "training_zip", "runpod_training"]
    assert house.run().state == "submitted"


class _served:  # noqa: N801 - reads as what it is
    """Our HTTP server on a free port."""

    def __init__(self, connections: Connections) -> None:
        config = uvicorn.Config(create_app(connections), port=0, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        _eventually(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)


def _eventually(condition: Callable[[], object]) -> None:
    import time

    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 10 seconds"
        time.sleep(0.01)
