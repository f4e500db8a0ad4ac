"""From an inbox folder to a served version through the two batches, over real HTTP, on both databases."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import (
    ImageSet,
    ImageSetMember,
    OutboxEvent,
    SelfieUpload,
    TrainingRun,
    UserModel,
)
from lora_pipeline.image_sets.drafts import ask_for_training
from lora_pipeline.image_sets.freezing import SetBlocked
from lora_pipeline.objects import open_store
from lora_pipeline.providers.protocol import Unauthenticated
from lora_pipeline.settings import Settings, SettingsError
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.controls import pause_submissions, resume_submissions
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.start_batch import LEASE, start_ready, work_to_start
from lora_pipeline.trainings.starting import start_training
from lora_pipeline_tests.fixtures.photographs import drop_photographs, png_header


def _inbox(connections: Connections, model: str) -> Path:
    return connections.settings.home / "inbox" / model


def take_over(connections: Connections) -> str:
    """The lease that a failed batch kept, once its time is over."""
    token = take_lease(
        connections.database, LEASE, connections.settings.lease, connections.now() + timedelta(hours=1)
    )
    assert token is not None
    return token


def _finish(connections: Connections, simulator: RunningSimulator) -> list[str]:
    simulator.advance(7200)
    work = follow_and_find_work(connections)
    return list(finalise_succeeded(connections, lease=work.lease, say=print).done)


def test_two_models_go_from_folder_to_served_version(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 6)
    drop_photographs(_inbox(connections, "style_1"), 6, picture="coffee.png")
    (_inbox(connections, "style_1") / "model.toml").write_text('model_type = "style"\n')

    work = work_to_start(connections)
    assert work.lease
    report = start_ready(connections, lease=work.lease)
    assert sorted(report.done) == ["style_1", "user-50c"]
    assert not report.failures
    assert sorted(_finish(connections, simulator)) == ["style_1", "user-50c"]

    with connections.database.read() as session:
        models = {model.model_key: model for model in session.query(UserModel)}
        assert session.query(SelfieUpload).count() == 12
        events = {event.event_id for event in session.query(OutboxEvent)}
        runs = {run.id for run in session.query(TrainingRun)}
    assert models["user-50c"].replicate_model_id == "acme/user-50c-selfie-lora"
    assert models["style_1"].replicate_model_id == "acme/style_1-style-lora"
    assert {model.training_status for model in models.values()} == {"completed"}
    for run in runs:
        assert {
            f"zip:{run}",
            f"training:{run}:submitted",
            f"training:{run}:succeeded",
            f"lora:{run}",
        } <= events
    assert work_to_start(connections).lease is None, "nothing is trained twice"
    assert simulator.paid()["count"] == 2


def test_the_zip_holds_numbered_pictures_with_the_literal_trigger(connections: Connections) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    (_inbox(connections, "user-50c") / "photo 00.txt").write_text("on a red chair")
    start_training(connections, "user-50c", asked_by="test")
    with connections.database.read() as session:
        run = session.query(TrainingRun).one()
    archive = zipfile.ZipFile(BytesIO(connections.store.get_bytes(str(run.zip_key))))
    assert archive.namelist() == sorted(f"00{n}.{kind}" for n in range(5) for kind in ("jpg", "txt"))
    captions = {archive.read(name).decode() for name in archive.namelist() if name.endswith("txt")}
    assert captions == {"user50c, on a red chair", "a photo of user50c, a person"}


def test_four_images_are_refused_and_the_other_model_goes_on(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "too-few"), 4)
    drop_photographs(_inbox(connections, "enough"), 5)
    with pytest.raises(SetBlocked, match="At least 5 training images are required"):
        start_training(connections, "too-few", asked_by="test")
    report = start_ready(connections, lease=None)
    assert report.done == ("enough",)
    assert simulator.paid()["count"] == 1
    assert work_to_start(connections).lease is None, "a blocked set does not start a batch at every tick"
    drop_photographs(_inbox(connections, "too-few"), 1, first=4)
    assert start_ready(connections, lease=None).done == ("too-few",)


def test_too_few_good_photographs_among_many_files_start_no_paid_training(
    connections: Connections, simulator: RunningSimulator
) -> None:
    folder = _inbox(connections, "user-50c")
    drop_photographs(folder, 4)
    for number in range(4):
        (folder / f"no photograph {number}.jpg").write_text(f"text {number}")
    report = start_ready(connections, lease=None)
    assert (report.done, report.failures) == ((), ())
    assert simulator.paid()["count"] == 0
    assert work_to_start(connections).lease is None


def test_hostile_and_broken_files_cost_only_themselves(
    connections: Connections, simulator: RunningSimulator
) -> None:
    folder = _inbox(connections, "user-50c")
    drop_photographs(folder, 5)
    (folder / "Grüße 😀 aus ..; drop table.jpg").write_bytes((folder / "photo 00.jpg").read_bytes())
    (folder / "text.jpg").write_text("not a picture")
    (folder / "bomb.png").write_bytes(png_header(60_000, 60_000))
    (folder / "photo 01.png").write_bytes((folder / "photo 01.jpg").read_bytes())
    report = start_ready(connections, lease=None)
    assert report.done == ("user-50c",)
    with connections.database.read() as session:
        out = {
            member.source_name: member.findings[0]["code"]
            for member in session.query(ImageSetMember).filter_by(verdict="excluded")
        }
        usable = session.query(ImageSet).one().usable_count
    assert usable == 5
    assert out["text.jpg"] == "not_an_image"
    assert out["bomb.png"] == "too_many_pixels"
    assert len(out) == 4


def test_a_store_that_fails_while_packing_says_so_and_the_next_batch_goes_on(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    in_the_way = connections.settings.home / "objects" / "submissions"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a folder should be")
    report = start_ready(connections, lease=None)
    assert "Failed to create training ZIP" in report.failures[0].reason
    in_the_way.unlink()
    assert start_ready(connections, lease=take_over(connections)).done == ("user-50c",)
    assert simulator.paid()["count"] == 1


def test_an_unreachable_bucket_is_named_with_the_remedy_and_nothing_is_lost(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    working = connections.store
    connections.store = open_store(
        "s3://bucket",
        endpoint_url="http://127.0.0.1:9",
        env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"},
    )
    with pytest.raises(Exception, match=r"s3://bucket|At least 5"):
        start_training(connections, "user-50c", asked_by="cli")
    with connections.database.read() as session:
        said = {upload.ai_model_output for upload in session.query(SelfieUpload)}
        states = {upload.processing_status for upload in session.query(SelfieUpload)}
    assert states == {"pending"}
    assert any("s3://bucket" in str(text) for text in said)
    connections.store = working
    assert start_training(connections, "user-50c", asked_by="cli").training_id


def test_an_empty_folder_is_nothing_to_train(connections: Connections) -> None:
    _inbox(connections, "nobody").mkdir()
    assert work_to_start(connections).lease is None
    with pytest.raises(Exception, match="nobody"):
        start_training(connections, "nobody", asked_by="test")


def test_a_crash_after_freezing_is_healed_by_the_next_batch(
    connections: Connections, simulator: RunningSimulator
) -> None:
    from lora_pipeline.trainings.starting import prepare_image_set

    drop_photographs(_inbox(connections, "user-50c"), 5)
    prepare_image_set(connections, "user-50c")
    work = work_to_start(connections)
    assert work.lease, work
    assert start_ready(connections, lease=work.lease).done == ("user-50c",)
    assert simulator.paid()["count"] == 1


def test_new_photographs_retrain_and_the_old_version_serves_until_then(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    start_ready(connections, lease=None)
    _finish(connections, simulator)
    with connections.database.read() as session:
        first = session.query(UserModel).one()

    drop_photographs(_inbox(connections, "user-50c"), 2, first=5)
    start_ready(connections, lease=None)
    with connections.database.read() as session:
        during = session.query(UserModel).one()
        retrained_set = session.query(ImageSet).order_by(ImageSet.id.desc()).first()
    assert retrained_set is not None
    assert retrained_set.usable_count == 7
    assert (during.replicate_version_id, during.training_status) == (first.replicate_version_id, "completed")
    assert during.trigger_word == first.trigger_word

    _finish(connections, simulator)
    with connections.database.read() as session:
        after = session.query(UserModel).one()
    assert after.replicate_version_id != first.replicate_version_id
    assert after.lora_weights_url != first.lora_weights_url


def test_without_permission_a_real_provider_gets_only_what_a_person_asked_for(
    connections: Connections, simulator: RunningSimulator
) -> None:
    connections.may_submit_by_itself = lambda: False  # type: ignore[method-assign]  # a real provider, for once
    drop_photographs(_inbox(connections, "user-50c"), 6)
    work = work_to_start(connections)
    assert work.lease is None
    assert "LORA_AUTO_SUBMIT is off" in work.explanation
    start_training(connections, "user-50c", asked_by="cli")
    assert simulator.paid()["count"] == 1


def test_a_pause_keeps_trainings_packed_until_resumed(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    now = connections.now()
    pause_submissions(connections.database, reason="budget review", actor="ada", now=now)
    result = start_training(connections, "user-50c", asked_by="cli")
    assert "budget review" in str(result.reason)
    assert work_to_start(connections).lease is None
    resume_submissions(connections.database, actor="ada", now=now)
    assert start_ready(connections, lease=None).done == ("user-50c",)
    assert simulator.paid()["count"] == 1


def test_a_person_who_asks_again_gets_a_new_training_of_the_same_photographs(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(_inbox(connections, "user-50c"), 5)
    start_ready(connections, lease=None)
    _finish(connections, simulator)
    ask_for_training(connections.database, "user-50c", actor="ada", now=connections.now())
    assert start_ready(connections, lease=None).done == ("user-50c",)
    assert simulator.paid()["count"] == 2


def test_no_token_and_no_simulator_is_said_with_what_to_do(tmp_path: Path) -> None:
    connections = Connections(Settings(home=tmp_path, replicate_api_token=None))
    with pytest.raises(SettingsError, match="REPLICATE_API_TOKEN environment variable is not set"):
        _ = connections.replicate


def test_a_wrong_token_is_said_and_nothing_is_lost(
    connections: Connections, simulator: RunningSimulator
) -> None:
    simulator.settings(api_token="r8_right")
    drop_photographs(_inbox(connections, "user-50c"), 5)
    with pytest.raises(Unauthenticated, match="REPLICATE_API_TOKEN"):
        start_training(connections, "user-50c", asked_by="cli")
    simulator.settings(api_token=None)
    assert start_training(connections, "user-50c", asked_by="cli").training_id
    assert simulator.paid()["count"] == 1
