"""What is deleted because its time is over, and what is not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import (
    AuditEntry,
    Erasure,
    Image,
    ImageSet,
    ImageSetMember,
    OutboxEvent,
    SelfieUpload,
    TrainingRun,
    WebhookDelivery,
)
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline.erasure.receipts import receipt
from lora_pipeline.erasure.retention import run_retention
from lora_pipeline.image_sets.drafts import ask_for_training
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import take_in_from_inbox
from lora_pipeline.image_sets.sources import ImageSource, source_from_path
from lora_pipeline.image_sets.uploads import UploadUnknown, keep_uploads, uploaded_sources
from lora_pipeline.lineage.tracing import trace
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.intents import TrainingRefused
from lora_pipeline.trainings.starting import start_training
from lora_pipeline_tests.erasure.lives import KEY, USER, drop_user, train
from lora_pipeline_tests.fixtures.photographs import drop_photographs

DAY = timedelta(days=1)


def take_in(connections: Connections, key: str = KEY) -> None:
    take_in_from_inbox(
        connections.database,
        connections.store,
        connections.inbox,
        key,
        profile=connections.image_profile,
        clock=connections.now,
    )


def pictures(connections: Connections) -> list[str]:
    return [
        info.key
        for info in connections.store.list()
        if info.key.startswith("users/") or info.key.endswith("contact-sheet.jpg")
    ]


def age(connections: Connections, by: timedelta) -> None:
    """Let everything have happened this much earlier."""
    with connections.database.begin() as session:
        for image in session.query(Image):
            image.created_at -= by
        for image_set in session.query(ImageSet):
            image_set.last_image_at = image_set.last_image_at and image_set.last_image_at - by
            image_set.asked_for_at = image_set.asked_for_at and image_set.asked_for_at - by
        for run in session.query(TrainingRun):
            run.state_changed_at -= by
            run.completed_at = run.completed_at and run.completed_at - by


@pytest.mark.deep
def test_photographs_go_a_year_after_the_last_training_and_the_lora_stays(
    connections: Connections, simulator: RunningSimulator
) -> None:
    drop_user(connections)
    train(connections, simulator)
    age(connections, 364 * DAY)
    assert run_retention(connections).photographs == 0
    age(connections, 2 * DAY)
    planned = run_retention(connections, apply=False)
    assert (planned.applied, planned.due[0].photographs, planned.due[0].models) == (False, 6, (KEY,))
    assert pictures(connections)

    done = run_retention(connections)
    assert (done.photographs, done.failures) == (6, ())
    assert pictures(connections) == []
    assert run_retention(connections).due == ()
    with connections.database.read() as session:
        image = session.query(Image).first()
        assert image is not None
        assert image.deleted_at is not None
        assert session.query(SelfieUpload).filter(SelfieUpload.processed_url.is_not(None)).count() == 0
        entry = session.query(AuditEntry).filter_by(action="delete due photographs").one()
        assert (entry.subject, entry.details) == (KEY, {"photographs": 6})
    assert [node.facts["model"] for node in trace(connections.database, image.sha256).lineage.versions] == [
        KEY
    ]
    assert connections.store.head("sets/1/manifest.json").size
    with pytest.raises(TrainingRefused, match=r"were deleted on .* Upload them again"):
        start_training(connections, KEY, asked_by="test")

    # Sent again, they are as good as new.
    folder = connections.settings.home / "inbox" / KEY
    for path in folder.glob("*.jpg"):
        path.rename(path.with_name(f"again {path.name}"))
    take_in(connections)
    ask_for_training(connections.database, KEY, actor="test", now=connections.now())
    assert start_training(connections, KEY, asked_by="test").training_id


def test_photographs_that_were_never_trained_go_too_but_not_the_houses(connections: Connections) -> None:
    drop_user(connections)
    style = drop_user(connections, "style_1")
    (style / "model.toml").write_text('model_type = "style"\n')
    take_in(connections)
    take_in(connections, "style_1")
    age(connections, 366 * DAY)
    before = len(pictures(connections))
    assert run_retention(connections).photographs == 6
    assert len(pictures(connections)) == before / 2
    with connections.database.read() as session:
        assert {image.user_id for image in session.query(Image) if image.deleted_at is None} == {"house"}
        assert session.query(ImageSetMember).count() == 6, "the empty draft is none"


def test_an_upload_that_was_deleted_is_unknown_until_it_is_sent_again(
    connections: Connections, tmp_path: Path
) -> None:
    database, store = connections.database, connections.store
    sources = [source_from_path(path) for path in drop_photographs(tmp_path / "photos", 1)]

    def upload() -> tuple[str, str]:
        (kept,) = keep_uploads(
            database, store, USER, sources, profile=connections.image_profile, now=connections.now()
        )
        return str(kept.sha256), kept.name

    first = upload()
    age(connections, 366 * DAY)
    assert run_retention(connections).photographs == 1
    with pytest.raises(UploadUnknown, match="Upload the image again"):
        uploaded_sources(database, store, USER, [first])
    assert upload() == first
    (found,) = uploaded_sources(database, store, USER, [first])
    assert b"".join(found.open())


def test_what_somebody_touched_lately_stays(connections: Connections) -> None:
    drop_user(connections)
    take_in(connections)
    age(connections, 366 * DAY)
    ask_for_training(connections.database, KEY, actor="test", now=connections.now())
    assert run_retention(connections).due == ()
    assert pictures(connections)


def test_observing_only_says_what_is_due(connections: Connections) -> None:
    drop_user(connections)
    take_in(connections)
    age(connections, 366 * DAY)
    observing = Connections(connections.settings.model_copy(update={"observe": True}))
    report = run_retention(observing)
    observing.database.close()
    assert (report.applied, report.photographs, report.due[0].photographs) == (False, 0, 6)
    assert len(pictures(connections)) == 12


def test_old_bookkeeping_goes_and_what_is_owed_stays(connections: Connections) -> None:
    now = connections.now()
    with connections.database.begin() as session:
        for number, acknowledged in enumerate((None, now - 31 * DAY, now - 29 * DAY)):
            session.add(
                OutboxEvent(
                    event_id=str(number),
                    asset_key="x",
                    created_at=now - 40 * DAY,
                    acknowledged_at=acknowledged,
                )
            )
        for number, (received, handled) in enumerate(
            ((now - 31 * DAY, None), (now - 29 * DAY, None), (now - 31 * DAY, now - 31 * DAY))
        ):
            session.add(
                WebhookDelivery(
                    provider="replicate",
                    delivery_id=str(number),
                    job_id="j",
                    status="x",
                    body_sha256="0" * 64,
                    received_at=received,
                    handled_at=handled,
                )
            )
    assert run_retention(connections).bookkeeping == {"outbox": 1, "webhook_deliveries": 1}
    with connections.database.read() as session:
        assert {row.event_id for row in session.query(OutboxEvent)} == {"0", "2"}
        assert {row.delivery_id for row in session.query(WebhookDelivery)} == {"1", "2"}


def test_erasures_that_were_left_half_done_are_completed(connections: Connections) -> None:
    drop_user(connections)
    take_in(connections)
    erasure_id, _ = begin_erasure(connections, USER, "test")
    assert pictures(connections)
    (carried,) = run_retention(connections, forget_partition=lambda _: True).erasures
    assert (carried.erasure_id, carried.completed) == (erasure_id, True)
    assert pictures(connections) == []
    # What an intake in flight had stored, and found nobody to store it for.
    connections.store.put_bytes(f"users/{USER}/originals/{'0' * 64}", b"late")
    connections.store.put_bytes(f"users/other/originals/{'0' * 64}", b"not theirs")
    report = run_retention(connections)
    assert (report.erasures, report.leftovers) == ((), 1)
    assert pictures(connections) == [f"users/other/originals/{'0' * 64}"]


def test_a_store_that_refuses_is_asked_for_a_week_and_then_the_receipt_says_so(
    connections: Connections,
) -> None:
    drop_user(connections)
    take_in(connections)
    folder = connections.settings.home / "objects" / "users"
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(folder.with_name("moved"))
    erasure_id, _ = begin_erasure(connections, USER, "test")
    carried = carry_out(connections, erasure_id)
    assert not carried.completed
    assert ("original", "the store refuses to delete it") in carried.waiting
    assert any("is a symbolic link" in said for said in carried.told)
    with connections.database.begin() as session:
        session.query(Erasure).one().began_at -= 8 * DAY
    run_retention(connections, forget_partition=lambda _: True)
    with connections.database.read() as session:
        shown = receipt(session, erasure_id)
    assert shown["state"] == "completed"
    assert {one["what"] for one in shown["stays"]} == {"original", "normalised image", "folder"}
    assert USER not in str(shown)


def test_dagsters_partition_waits_for_dagster_and_the_receipt_says_so(connections: Connections) -> None:
    drop_user(connections)
    take_in(connections)
    erasure_id, _ = begin_erasure(connections, USER, "test")
    carried = carry_out(connections, erasure_id)
    assert carried.completed
    assert [what for what, _ in carried.waiting] == ["Dagster partition"]
    forgotten: list[str] = []

    def forget(key: str) -> bool:
        forgotten.append(key)
        return True

    run_retention(connections, forget_partition=forget)
    assert forgotten == [KEY]
    assert run_retention(connections, forget_partition=lambda _: False).erasures == ()


@pytest.mark.parametrize("seconds", ["0", "3600", "-1"])
def test_less_than_a_day_is_no_time_to_keep_photographs(tmp_path: Path, seconds: str) -> None:
    with pytest.raises(ValueError, match="keep_photographs"):
        Settings(home=tmp_path, keep_photographs=seconds)


@pytest.mark.deep
def test_an_intake_that_the_erasure_overtakes_leaves_nothing_for_long(connections: Connections) -> None:
    folder = drop_user(connections)
    drop_photographs(folder, 20)
    (folder / "model.toml").write_text(f'user_id = "{USER}"\n')
    taken: list[str] = []

    def overtake(source: ImageSource) -> None:
        taken.append(source.name)
        if len(taken) == 17:  # the first group is written, the second is on its way
            erasure_id, _ = begin_erasure(connections, USER, "test")
            carry_out(connections, erasure_id, forget_partition=lambda _: True)

    with pytest.raises(IntakeError, match=r"there is no model|has just been erased"):
        take_in_from_inbox(
            connections.database,
            connections.store,
            connections.inbox,
            KEY,
            profile=connections.image_profile,
            progress=overtake,
        )
    with connections.database.read() as session:
        assert session.query(Image).count() == session.query(SelfieUpload).count() == 0
    run_retention(connections)
    assert pictures(connections) == []
