"""Running beside another system: everything is reported, and nothing is submitted, served or deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lora_pipeline.cli.main import main
from lora_pipeline.connections import Connections
from lora_pipeline.database.observing import Observing
from lora_pipeline.database.tables import Activation, ModelVersion, TrainingRun
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.controls import pause_submissions
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.retrying import retry_now
from lora_pipeline.trainings.start_batch import start_ready, work_to_start
from lora_pipeline.trainings.starting import start_training
from lora_pipeline.versions.bulk_sync import BulkOptions, bulk_sync
from lora_pipeline.versions.pinning import Chooser, activate_version, roll_back
from lora_pipeline.versions.sync import sync_model
from lora_pipeline.versions.sync_status import sync_status
from lora_pipeline_tests.fixtures.photographs import drop_photographs
from lora_pipeline_tests.fixtures.pipeline import model_row

KEY = "user-50c"
BY = Chooser("test", "test", datetime.now(UTC))


@pytest.fixture
def acting(simulator: RunningSimulator, sqlite_template: Path, tmp_path: Path) -> Iterator[Connections]:
    """The project as it acts."""
    shutil.copyfile(sqlite_template, tmp_path / "lora.sqlite3")
    connections = Connections(_settings(simulator, tmp_path, observe=False))
    (connections.settings.home / "inbox").mkdir(parents=True)
    yield connections
    connections.database.close()


@pytest.fixture
def observing(simulator: RunningSimulator, acting: Connections, tmp_path: Path) -> Iterator[Connections]:
    """The same project with LORA_OBSERVE on."""
    connections = Connections(_settings(simulator, tmp_path, observe=True))
    yield connections
    connections.database.close()


def _settings(simulator: RunningSimulator, folder: Path, *, observe: bool) -> Settings:
    return Settings(
        home=folder / "home",
        database_url=f"sqlite:///{folder / 'lora.sqlite3'}",
        replicate_api_token="r8_test",
        replicate_base_url=simulator.url,
        image_profile="demo",
        ready_images=5,
        ready_quiet=timedelta(0),
        observe=observe,
    )


def _photographs(connections: Connections) -> None:
    drop_photographs(connections.settings.home / "inbox" / KEY, 6)


def _trained(acting: Connections, simulator: RunningSimulator) -> None:
    """A model with one served version, and a second training that has succeeded at the provider."""
    _photographs(acting)
    start_ready(acting, lease=None)
    simulator.advance(7200)
    work = follow_and_find_work(acting)
    finalise_succeeded(acting, lease=work.lease, say=print)
    drop_photographs(acting.settings.home / "inbox" / KEY, 2, first=6)
    start_training(acting, KEY, asked_by="test")
    simulator.advance(7200)


def test_a_ready_set_is_named_and_not_started(observing: Connections, simulator: RunningSimulator) -> None:
    _photographs(observing)
    work = work_to_start(observing)
    assert work.lease is None
    assert work.explanation == "observing: 1 would be started (user-50c)"
    with pytest.raises(Observing, match="LORA_OBSERVE is on"):
        start_training(observing, KEY, asked_by="test")
    assert not start_ready(observing, lease=None).done
    with observing.database.read() as session:
        assert session.query(TrainingRun).count() == 0, "nothing waits to be paid when observing ends"
    assert simulator.paid()["count"] == 0


def test_what_was_packed_before_is_not_sent(
    acting: Connections, observing: Connections, simulator: RunningSimulator
) -> None:
    _photographs(acting)
    pause_submissions(acting.database, reason="test", actor="test", now=acting.now())
    start_training(acting, KEY, asked_by="test")
    from lora_pipeline.trainings.starting import submit

    result = submit(observing, 1)
    assert "LORA_OBSERVE is on" in str(result.reason)
    assert simulator.paid()["count"] == 0


def test_a_training_is_followed_and_registered_and_not_served(
    acting: Connections, observing: Connections, simulator: RunningSimulator
) -> None:
    _trained(acting, simulator)
    before = model_row(acting.database, KEY).replicate_version_id
    work = follow_and_find_work(observing)
    assert work.lease
    assert finalise_succeeded(observing, lease=work.lease, say=print).done == (KEY,)
    with observing.database.read() as session:
        assert session.query(ModelVersion).count() == 2
        assert session.query(Activation).count() == 1
        newest = session.query(TrainingRun).order_by(TrainingRun.id.desc()).limit(1).one()
    assert newest.state == "finalised"
    assert newest.zip_deleted_at is None, "nothing is deleted"
    assert model_row(observing.database, KEY).replicate_version_id == before


def test_drift_is_reported_and_left(
    acting: Connections, observing: Connections, simulator: RunningSimulator
) -> None:
    _trained(acting, simulator)
    before = model_row(acting.database, KEY).replicate_version_id
    (row,) = sync_status(observing).rows
    assert row.drift.verdict.value == "behind"
    assert sync_model(observing, KEY, actor="test").drift.verdict.value == "behind"
    report = bulk_sync(observing, BulkOptions(apply=True), actor="test")
    assert report.options.apply is False
    assert model_row(observing.database, KEY).replicate_version_id == before


@pytest.mark.parametrize(
    "wanted",
    [
        lambda to: activate_version(to.database, KEY, "V1", BY),
        lambda to: roll_back(to.database, KEY, BY),
        lambda to: retry_now(to, 1, "test"),
        lambda to: cancel_training(to.database, to.replicate, 2, "test", to.now),
    ],
    ids=["activate", "rollback", "retry", "cancel"],
)
def test_what_a_person_asks_for_is_refused_with_the_reason(
    wanted: Callable[[Connections], object],
    acting: Connections,
    observing: Connections,
    simulator: RunningSimulator,
) -> None:
    _trained(acting, simulator)
    work = follow_and_find_work(acting)
    finalise_succeeded(acting, lease=work.lease, say=print)
    with acting.database.begin() as session:
        session.get_one(TrainingRun, 1).state = "failed"
    paid = simulator.paid()["count"]
    with pytest.raises(Observing, match="LORA_OBSERVE is on"):
        wanted(observing)
    assert simulator.paid()["count"] == paid
    assert simulator.requests().get("trainings.cancel", 0) == 0


def test_no_plan_is_carried_out_over_the_other_systems_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "actor_maker" / "resources" / "style_images" / "1_ink"
    folder.mkdir(parents=True)
    entry: dict[str, object] = {
        "name": "V7",
        "timestamp": "2025-10-12T08:14:00.884Z",
        "parameters": {},
        "status": "completed",
    }
    entry |= {"imageCount": 1, "loraUrl": "s3://bucket/style_1_vV7.safetensors"}
    ids = ("3e248bb6-012c-4384-ae6c-4b19c126d093-e1", "style_1_vV7")
    text = json.dumps({"versions": [{"id": name, **entry} for name in ids]})
    file = folder / "training_versions.json"
    file.write_text(text)
    monkeypatch.setenv("LORA_HOME", str(tmp_path / "home"))

    def dedupe(observe: str) -> int:
        monkeypatch.setenv("LORA_OBSERVE", observe)
        with pytest.raises(SystemExit) as ended:
            main(["dedupe", "--base-dir", str(tmp_path / "actor_maker"), "--apply"])
        return int(ended.value.code or 0)

    assert dedupe("1") == 5
    assert "LORA_OBSERVE is on" in capsys.readouterr().err
    assert file.read_text() == text
    assert dedupe("0") == 0
    assert file.read_text() != text
