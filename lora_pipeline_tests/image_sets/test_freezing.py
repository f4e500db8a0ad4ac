"""Frozen sets: numbered, digested, shown, never changed; and what forbids freezing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image as Pictures

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, Image, ImageSet, ImageSetMember, TrainingRun, UserModel
from lora_pipeline.image_sets.drafts import ask_for_training, set_caption, set_choice
from lora_pipeline.image_sets.facts import image_set_facts
from lora_pipeline.image_sets.freezing import SetBlocked, latest_frozen_set
from lora_pipeline.image_sets.frozen import frozen_members
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.manifest import set_digest
from lora_pipeline.image_sets.set_checks import assess
from lora_pipeline.objects import open_store
from lora_pipeline.objects.local import LocalObjectStore
from lora_pipeline_tests.image_sets.conftest import DEMO, KEY, House, folder_of, photographs, small
from lora_pipeline_tests.image_sets.pictures import encoded, scene
from lora_pipeline_tests.image_sets.records import context, member, members


@pytest.fixture
def filled(house: House) -> House:
    house.put({**photographs(6), "text.jpg": b"no photograph", "photo-02.txt": b"in the sun"})
    house.take_in()
    return house


def add_run(database: Database, image_set_id: int, state: str = "finalised", **fields: Any) -> None:
    """A training of the set, as later stages would leave it."""
    now = datetime.now(UTC)
    with database.begin() as session:
        image_set = session.get_one(ImageSet, image_set_id)
        model = session.get_one(UserModel, image_set.model_id)
        attempt = session.query(TrainingRun).filter_by(model_id=model.id).count() + 1
        values = {"trigger_word": model.trigger_word} | fields
        session.add(
            TrainingRun(
                user_id=model.user_id,
                model_id=model.id,
                image_set_id=image_set_id,
                attempt=attempt,
                token=f"token-{image_set_id}-{attempt}",
                provider="replicate",
                destination="acme/x",
                base_model="flux-dev",
                trainer_requested="ostris/flux-dev-lora-trainer",
                state=state,
                loss_history=[],
                state_changed_at=now,
                created_at=now,
                updated_at=now,
                **values,
            )
        )


def names(house: House) -> list[str]:
    with house.database.read() as session:
        image_set = session.query(ImageSet).order_by(ImageSet.id.desc()).first()
        assert image_set is not None
        rows = session.query(ImageSetMember).filter_by(image_set_id=image_set.id, verdict="included")
        return sorted(row.source_name for row in rows)


def test_a_frozen_set_has_members_manifest_and_contact_sheet_that_agree(filled: House) -> None:
    frozen = filled.freeze()
    assert (frozen.image_count, frozen.usable_count, frozen.unchanged) == (7, 6, False)
    manifest = json.loads(filled.store.get_bytes(frozen.manifest_key))
    with filled.database.read() as session:
        ready = frozen_members(session, frozen.image_set_id)
    assert [m.name for m in ready] == [f"{number:03}.jpg" for number in range(6)]
    assert [m.caption for m in ready] == [None, None, "in the sun", None, None, None]
    for entry, m in zip(manifest["images"], ready, strict=True):
        assert (entry["name"], entry["normalised_sha256"]) == (m.name, m.sha256)
        assert (entry["size"], entry["crc32"], entry["caption"]) == (m.size, m.crc32, m.caption)
        assert len(filled.store.get_bytes(m.normalised_key)) == m.size
    assert [entry["source_name"] for entry in manifest["excluded"]] == ["text.jpg"]
    assert manifest["excluded"][0]["findings"][0]["code"] == "not_an_image"
    assert manifest["digest"] == frozen.digest
    assert manifest["trigger_word"] == "user50c"


def test_a_draft_takes_over_no_photograph_that_was_deleted(filled: House) -> None:
    filled.freeze()
    with filled.database.begin() as session:
        first = session.query(ImageSetMember).filter_by(verdict="included").first()
        assert first is not None
        session.get_one(Image, first.image_id).deleted_at = filled.now
    ask_for_training(filled.database, KEY, actor="test", now=filled.now)
    assert len(names(filled)) == 5
    assert first.source_name not in names(filled)


def test_the_contact_sheet_is_a_modest_jpeg(filled: House) -> None:
    data = filled.store.get_bytes(filled.freeze().contact_sheet_key)
    with Pictures.open(io.BytesIO(data)) as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width <= 600
        assert sheet.height > 300
    assert len(data) < 200_000


def test_a_frozen_set_is_given_back_as_it_is(filled: House) -> None:
    frozen = filled.freeze()
    assert filled.freeze() == frozen == latest_frozen_set(filled.database, KEY)


def test_the_same_photographs_have_the_same_digest_in_another_house(
    filled: House, sqlite_database: Database, tmp_path: Any
) -> None:
    other = House(sqlite_database, open_store(str(tmp_path / "o2")), open_store(str(tmp_path / "i2")))
    other.put({"x.jpg": small(40)}, "another")
    other.take_in("another")
    for name in ("text.jpg", "photo-02.txt", *reversed(photographs(6))):
        files = {**photographs(6), "text.jpg": b"no photograph", "photo-02.txt": b"in the sun"}
        other.put({name: files[name]})
    other.take_in()
    assert other.freeze().digest == filled.freeze().digest


def test_the_digest_follows_photographs_captions_order_and_trigger_only() -> None:
    included = assess(members(6), context()).included
    digest = set_digest(included, "user50c")
    renamed = [replace(m, member=replace(m.member, name=f"other {m.member.name}")) for m in included]
    assert set_digest(renamed, "user50c") == digest
    assert set_digest(included, "user51") != digest
    assert set_digest(included[:-1], "user50c") != digest
    assert set_digest(included[::-1], "user50c") != digest
    captioned = assess([member(0, caption="words"), *members(6)[1:]], context()).included
    assert set_digest(captioned, "user50c") != digest


# What forbids it


@pytest.mark.parametrize("count", [1, 4])
def test_fewer_than_five_images_are_refused_in_the_known_words(house: House, count: int) -> None:
    house.put(photographs(count))
    house.take_in()
    ask_for_training(house.database, KEY, actor="maria", now=house.now)
    with pytest.raises(SetBlocked, match="At least 5 training images are required") as raised:
        house.freeze()
    assert raised.value.findings[0].value == count
    with house.database.read() as session:
        draft = session.query(ImageSet).one()
    assert draft.state == "draft"
    assert draft.asked_for_at is None, "asked once, answered once: not again at every tick"
    house.put(photographs(5))
    house.take_in()
    assert house.freeze().usable_count == 5


def test_a_model_without_any_photograph_is_refused_in_the_known_words(house: House) -> None:
    house.put({"notes.txt": b"x", ".DS_Store": b"x"})
    with pytest.raises(IntakeError, match="no model"):
        house.freeze()
    house.put({"a.jpg": b"text"})
    house.take_in()
    with pytest.raises(SetBlocked, match="At least 5 training images are required"):
        house.freeze()


def test_a_zip_over_the_limit_is_refused_with_the_numbers(filled: House) -> None:
    with pytest.raises(SetBlocked, match="50,000") as raised:
        filled.freeze(zip_limit_bytes=50_000)
    assert raised.value.findings[0].code == "zip_too_large"
    assert filled.freeze().usable_count == 6


def test_a_changed_trigger_word_is_refused_on_a_retrain(filled: House) -> None:
    add_run(filled.database, filled.freeze().image_set_id, trigger_word="user50")
    filled.put({"new.jpg": small(30)})
    filled.take_in()
    with pytest.raises(SetBlocked, match="Set it back to user50"):
        filled.freeze()


# What comes after


def test_new_photographs_open_a_draft_with_those_that_were_in(filled: House) -> None:
    first = filled.freeze()
    before = filled.store.get_bytes(first.manifest_key)
    filled.put({"new.jpg": small(30)})
    report = filled.take_in()
    assert report.image_set_id != first.image_set_id
    second = filled.freeze()
    assert second.usable_count == 7
    assert names(filled) == ["new.jpg", *(f"photo-{number:02}.jpg" for number in range(6))]
    assert second.digest != first.digest
    assert filled.store.get_bytes(first.manifest_key) == before


def test_a_set_like_the_last_trained_one_is_reported_as_unchanged(filled: House) -> None:
    first = filled.freeze()
    add_run(filled.database, first.image_set_id, state="submitted")
    assert filled.freeze().unchanged
    ask_for_training(filled.database, KEY, actor="maria", now=filled.now)
    again = filled.freeze()
    assert again.image_set_id != first.image_set_id
    assert again.digest == first.digest
    assert again.unchanged


@pytest.mark.parametrize("state", ["failed", "canceled", "aborted"])
def test_a_set_whose_training_came_to_nothing_is_not_unchanged(filled: House, state: str) -> None:
    add_run(filled.database, filled.freeze().image_set_id, state=state)
    assert not filled.freeze().unchanged


def test_a_retrain_on_far_fewer_images_is_warned_about(house: House) -> None:
    house.put(photographs(10))
    house.take_in()
    add_run(house.database, house.freeze().image_set_id)
    for number in range(5):
        set_choice(
            house.database,
            KEY,
            f"photo-{number:02}.jpg",
            choice="exclude",
            actor="maria",
            profile=DEMO,
            now=house.now,
        )
    assert "fewer_than_before" in {finding.code for finding in house.freeze().findings}


def test_photographs_that_arrive_while_freezing_are_not_lost(filled: House) -> None:
    """The manifest is written outside the transaction: what came meanwhile must end up in it."""

    class Busy(LocalObjectStore):
        arrived = False

        def put_bytes(self, key: str, data: bytes, **options: Any) -> None:
            super().put_bytes(key, data, **options)
            if key.endswith("manifest.json") and not self.arrived:
                self.arrived = True
                filled.put({"late.jpg": small(31)})
                filled.take_in()

    busy = Busy(folder_of(filled.store))
    frozen = replace(filled, store=busy).freeze()
    manifest = json.loads(filled.store.get_bytes(frozen.manifest_key))
    assert frozen.usable_count == 7
    assert "late.jpg" in [entry["source_name"] for entry in manifest["images"]]


def test_a_crash_before_the_set_is_ready_leaves_a_draft_that_freezes_the_same(filled: House) -> None:
    class Dying(LocalObjectStore):
        def put_bytes(self, key: str, data: bytes, **options: Any) -> None:
            super().put_bytes(key, data, **options)
            if key.endswith("contact-sheet.jpg"):
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        replace(filled, store=Dying(folder_of(filled.store))).freeze()
    assert latest_frozen_set(filled.database, KEY) is None
    assert filled.freeze().usable_count == 6


# What a person decides


def choose(house: House, name: str, choice: Any) -> None:
    set_choice(house.database, KEY, name, choice=choice, actor="maria", profile=DEMO, now=house.now)


def test_a_person_takes_an_image_out_and_it_stays_out(filled: House) -> None:
    choose(filled, "photo-03.jpg", "exclude")
    filled.freeze()
    assert "photo-03.jpg" not in names(filled)
    filled.put({"photo-03.jpg": small(3), "again.jpg": small(3)})
    filled.take_in()
    filled.freeze()
    assert {"photo-03.jpg", "again.jpg"} & set(names(filled)) == set()


def test_a_person_takes_a_small_image_in_and_the_checks_get_it_back(house: House) -> None:
    house.put({**photographs(5), "small.jpg": encoded(scene(60, (200, 200)))})
    house.take_in()
    choose(house, "small.jpg", "include")
    house.freeze()
    assert "small.jpg" in names(house)
    choose(house, "small.jpg", "checks")
    house.freeze()
    assert "small.jpg" not in names(house)
    with house.database.read() as session:
        assert [entry.action for entry in session.query(AuditEntry)] == ["include image", "checks image"]


def test_what_is_no_image_cannot_be_taken_in(filled: House) -> None:
    with pytest.raises(IntakeError, match=r"text\.jpg cannot be included: Not an image"):
        choose(filled, "text.jpg", "include")
    with pytest.raises(IntakeError, match=r"no image 'nobody\.jpg'"):
        choose(filled, "nobody.jpg", "exclude")
    assert filled.freeze().usable_count == 6


def test_a_caption_can_be_written_and_taken_away(filled: House) -> None:
    for text, expected in (("  at home ", "at home"), (" ", None)):
        set_caption(filled.database, KEY, "photo-02.jpg", text, actor="maria", profile=DEMO, now=filled.now)
        frozen = filled.freeze()
        with filled.database.read() as session:
            assert frozen_members(session, frozen.image_set_id)[2].caption == expected


def test_a_draft_has_no_frozen_members(filled: House) -> None:
    with (
        filled.database.read() as session,
        pytest.raises(IntakeError, match="is still a draft"),
    ):
        frozen_members(session, session.query(ImageSet).one().id)


def test_what_dagster_is_told_names_no_file(filled: House) -> None:
    filled.put({"maria at the beach.jpg": small(0), "photo-00.png": encoded(scene(33, (320, 300)), "PNG")})
    filled.take_in()
    frozen = filled.freeze()
    with filled.database.read() as session:
        facts = json.dumps(image_set_facts(session, session.get_one(ImageSet, frozen.image_set_id)))
    assert "maria" not in facts
    assert "photo-0" not in facts
