"""Intake from an inbox: everything is kept, judged and recorded once, whatever it is and whatever breaks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, SelfieUpload, User, UserModel
from lora_pipeline.image_sets import examining
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.intake import IntakeReport, take_in
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.image_sets.profiles import PROFILES
from lora_pipeline.image_sets.sources import source_from_file, source_from_path
from lora_pipeline.image_sets.uploads import keep_uploads
from lora_pipeline.objects import ObjectStore, StoreUnavailable
from lora_pipeline.objects.local import LocalObjectStore
from lora_pipeline_tests.image_sets.conftest import DEMO, KEY, House, photographs, small
from lora_pipeline_tests.image_sets.pictures import bomb, encoded, exif, heic, photograph, scene


def states(report: IntakeReport) -> dict[str, str]:
    return {file.name: file.state for file in report.files}


def uploads(house: House) -> dict[str, SelfieUpload]:
    with house.database.read() as session:
        return {upload.filename: upload for upload in session.query(SelfieUpload)}


# The whole way


def test_photographs_from_a_folder_become_kept_originals_and_members(house: House) -> None:
    files = photographs(6)
    house.put(files)
    report = house.take_in()
    assert states(report) == dict.fromkeys(files, "included")
    with house.database.read() as session:
        images = session.query(Image).all()
        draft = session.query(ImageSet).one()
    assert (draft.state, draft.image_count, draft.usable_count) == ("draft", 6, 6)
    assert {house.store.get_bytes(image.object_key) for image in images} == set(files.values())
    for image in images:
        assert image.object_key == f"users/{KEY}/originals/{image.sha256}"
        assert image.normalised_key == f"users/{KEY}/normalised/{image.normalised_sha256}.jpg"
        assert len(house.store.get_bytes(image.normalised_key)) == image.normalised_size
    for name, upload in uploads(house).items():
        assert upload.processing_status == "completed"
        assert upload.original_url == house.inbox.address(f"{KEY}/{name}")
        assert upload.processed_url is not None
        assert house.store.key_of(upload.processed_url) is not None
        assert upload.ai_model_output == "Included"


def test_a_set_of_everything_that_can_go_wrong_keeps_what_is_good(house: House) -> None:
    good = photographs(5)
    upright = photograph(size=(360, 300))
    house.put(
        {
            **good,
            "rotated.JPG": encoded(upright, exif=exif(6, "2024:05:17", gps=True)),
            "phone.HEIC": heic(scene(70, (320, 300)), exif=exif(6).tobytes()),
            "cut off.jpg": small(71)[:-3000],
            "tiny.png": encoded(scene(72, (100, 90)), "PNG"),
            "z twin.jpg": good["photo-00.jpg"],
            "bomb.png": bomb(),
            "text.jpg": b"no photograph",
            "._photo-00.jpg": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
            "nothing.jpg": b"",
            "film.mov": b"\x00\x00\x00\x14ftypqt  ",
            "Grün & süß 🏖️.jpg": small(73),
            "photo-00.png": encoded(scene(74, (320, 300)), "PNG"),
            ".DS_Store": b"x",
            "Thumbs.db": b"x",
        }
    )
    report = house.take_in()
    taken = states(report)
    included = {name for name, state in taken.items() if state == "included"}
    assert included == {*good, "rotated.JPG", "phone.HEIC", "Grün & süß 🏖️.jpg", "photo-00.png"}
    codes = {file.name: {finding.code for finding in file.findings} for file in report.files}
    assert codes["cut off.jpg"] == {"damaged"}
    assert codes["tiny.png"] == {"too_small", "converted_format"}
    assert codes["z twin.jpg"] == {"exact_duplicate"}
    assert codes["bomb.png"] == {"too_many_pixels"}
    assert codes["text.jpg"] == codes["film.mov"] == {"not_an_image"}
    assert codes["._photo-00.jpg"] == {"apple_double"}
    assert codes["nothing.jpg"] == {"empty_file"}
    assert "turned_upright" in codes["rotated.JPG"]
    assert ".DS_Store" not in taken
    assert "Thumbs.db" not in taken
    assert "photo-00.jpg" in str(uploads(house)["z twin.jpg"].ai_model_output)
    assert uploads(house)["text.jpg"].processing_status == "failed"
    assert report.assessment is not None
    assert "shared_names" in {finding.code for finding in report.assessment.findings}


def test_the_same_works_from_a_bucket_to_a_bucket(house: House, s3_store: ObjectStore) -> None:
    bucket = replace(house, store=s3_store, inbox=s3_store)
    bucket.put({**photographs(5), "Grün & süß.jpg": small(9), "a+b%20c.jpg": small(10)})
    report = bucket.take_in()
    assert len(report.files) == 7
    assert {file.state for file in report.files} == {"included"}
    assert bucket.take_in().files == ()
    frozen = bucket.freeze()
    assert frozen.usable_count == 7
    assert s3_store.get_bytes(frozen.contact_sheet_key)
    assert all(
        upload.original_url.startswith("s3://") and "X-Amz" not in upload.original_url
        for upload in uploads(bucket).values()
    )


def test_the_same_photograph_of_two_users_is_two_photographs(house: House) -> None:
    """Erasing the one must leave the other theirs."""
    files = photographs(1)
    users = (KEY, "user-51d")
    for key in users:
        house.put(files, key)
        assert set(states(house.take_in(key)).values()) == {"included"}
    (content,) = files.values()
    uploaded = [source_from_file("again.jpg", BytesIO(content))]
    keep_uploads(house.database, house.store, "third", uploaded, profile=DEMO, now=house.clock())
    with house.database.read() as session:
        images = session.query(Image).all()
        used = session.query(ImageSetMember.image_id).all()
    assert len({image.user_id for image in images}) == len({image.object_key for image in images}) == 3
    assert {house.store.get_bytes(image.object_key) for image in images} == {content}
    assert len(set(used)) == 2


def test_an_empty_folder_has_no_model_and_says_so(house: House, tmp_path: Path) -> None:
    (tmp_path / "inbox" / KEY).mkdir(parents=True)
    with pytest.raises(IntakeError, match=r"no model 'user-50c'.*lora-pipeline upload"):
        house.take_in()


# Once and only once


def test_taking_in_again_reads_and_changes_nothing(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    before = house.counts()
    assert house.take_in().files == ()
    assert house.counts() == before


def test_the_same_photograph_under_two_models_of_a_user_is_one_image(house: House) -> None:
    for key in ("one", "two"):
        house.put({"model.toml": b'user_id = "42585527"', **photographs(5)}, key)
        house.take_in(key)
    assert house.counts()[0] == 5
    with house.database.read() as session:
        words = {model.model_key: model.trigger_word for model in session.query(UserModel)}
    assert words == {"one": "user42585527", "two": "user42585527b"}


def test_a_file_that_was_written_again_with_the_same_content_changes_nothing(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    house.freeze()
    house.put(photographs(5))
    report = house.take_in()
    assert {file.state for file in report.files} == {"known"}
    with house.database.read() as session:
        assert session.query(ImageSet).count() == 1


def test_a_file_that_was_replaced_takes_the_place_of_the_old_one(house: House) -> None:
    house.put({**photographs(5), "late.jpg": small(8)[:-2000]})
    assert states(house.take_in())["late.jpg"] == "excluded"
    house.put({"late.jpg": small(8)})
    report = house.take_in()
    assert states(report) == {"late.jpg": "included"}
    assert report.assessment is not None
    assert [m.member.name for m in report.assessment.members].count("late.jpg") == 1


def test_a_caption_that_comes_later_is_found(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    house.freeze()
    house.put({"photo-01.txt": "﻿in the garden \n".encode()})
    report = house.take_in()
    assert states(report) == {"photo-01.jpg": "included"}
    with house.database.read() as session:
        captions = session.query(ImageSetMember.caption).filter(ImageSetMember.caption.is_not(None)).all()
    assert [caption for (caption,) in captions] == ["in the garden"]


def test_two_processes_at_one_inbox_meet_in_one_draft(house: House) -> None:
    house.put(photographs(12))
    together = Barrier(3)

    def take_in_together() -> IntakeReport:
        together.wait()
        return house.take_in()

    with ThreadPoolExecutor(3) as pool:
        reports = [future.result() for future in [pool.submit(take_in_together) for _ in range(3)]]
    assert house.counts() == (12, 12, 12)
    assert all(file.state in ("included", "known") for report in reports for file in report.files)
    with house.database.read() as session:
        assert session.query(ImageSet).one().usable_count == 12


def test_models_made_at_the_same_moment_get_different_trigger_words(house: House) -> None:
    keys = ["user-50c", "50c", "50-c", "user_50c", "user-50c", "50c"]
    together = Barrier(len(keys))

    def make(key: str) -> str:
        together.wait()
        with house.database.begin() as session:
            return ensure_model(session, key, None, house.now).trigger_word

    with ThreadPoolExecutor(len(keys)) as pool:
        words = list(pool.map(make, keys))
    assert set(words) == {"user50c", "user50cb", "user50cc", "user50cd"}


# Crashes and faults


class Faulty(LocalObjectStore):
    """A store whose nth write fails."""

    def __init__(self, folder: Path, writes: int, error: Callable[[], Exception]) -> None:
        super().__init__(folder)
        self.left = writes
        self.error = error

    def put_bytes(self, key: str, data: bytes, **options: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error()
        super().put_bytes(key, data, **options)


@pytest.mark.parametrize("writes", [0, 7, 36])
def test_after_a_crash_at_any_write_a_second_run_completes_without_doubles(
    house: House, tmp_path: Path, writes: int
) -> None:
    house.put(photographs(19))
    dying = Faulty(tmp_path / "objects", writes, lambda: RuntimeError("killed"))
    with pytest.raises(RuntimeError, match="killed"):
        replace(house, store=dying).take_in()
    report = house.take_in()
    assert house.counts() == (19, 19, 19)
    assert report.assessment is not None
    assert len(report.assessment.included) == 19
    assert len(list(house.store.list("users"))) == 38


def test_a_full_disk_keeps_files_waiting_with_the_cause_and_the_next_run_takes_them(
    house: House, tmp_path: Path
) -> None:
    house.put(photographs(6))

    def full() -> Exception:
        return OSError(errno.ENOSPC, "No space left on device")

    report = replace(house, store=Faulty(tmp_path / "objects", 6, full)).take_in()
    waiting = len(report.waiting)
    assert waiting >= 3  # each file is written twice, on two threads
    for file in report.waiting:
        assert file.name in file.message
        assert "No space left" in file.message
        assert uploads(house)[file.name].processing_status == "pending"
        assert uploads(house)[file.name].ai_model_output == file.message
    assert len(house.take_in().files) == waiting
    assert house.counts() == (6, 6, 6)


def test_an_unreachable_bucket_is_said_and_nothing_is_lost(house: House, tmp_path: Path) -> None:
    house.put(photographs(5))

    def unreachable() -> Exception:
        return StoreUnavailable("s3://b/k", "cannot be reached", "Check the network")

    report = replace(house, store=Faulty(tmp_path / "objects", 0, unreachable)).take_in()
    assert {file.state for file in report.files} == {"waiting"}
    assert all("Check the network" in file.message for file in report.files)
    assert house.counts() == (0, 0, 5)
    assert len(house.take_in().files) == 5


def test_a_file_that_failed_waits_ten_minutes_before_it_makes_a_model_ready_again(
    house: House, tmp_path: Path
) -> None:
    house.put(photographs(5))
    disk_full = Faulty(tmp_path / "objects", 0, lambda: OSError(errno.ENOSPC, "full"))
    replace(house, store=disk_full).take_in()
    house.now += timedelta(minutes=9)
    assert house.ready_keys() == []
    house.now += timedelta(minutes=2)
    assert house.ready_keys() == [KEY]


def test_a_file_larger_than_any_photograph_is_refused_for_good(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "MAX_FILE_BYTES", 60_000)  # a file of 100 MB would cost the suite seconds
    house.put({**photographs(5), "film.jpg": b"\xff" * 60_001})
    report = house.take_in()
    assert states(report)["film.jpg"] == "failed"
    assert uploads(house)["film.jpg"].image_id is None
    assert house.take_in().files == ()


# Other ways in


def test_files_named_by_a_person_and_bytes_that_were_sent_are_taken_in_alike(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(small(1))
    (tmp_path / "a.txt").write_text("smiling")
    with house.database.begin() as session:
        ensure_model(session, KEY, None, house.now)
    sources = [
        source_from_path(tmp_path / "a.jpg"),
        source_from_file("../../etc/passwd.jpg", BytesIO(small(2))),
        source_from_file("image.jpg", BytesIO(small(3))),
        source_from_file("image.jpg", BytesIO(small(4))),
    ]
    seen: list[str] = []
    report = take_in(
        house.database,
        house.store,
        KEY,
        sources,
        profile=DEMO,
        progress=lambda source: seen.append(source.name),
    )
    assert [file.state for file in report.files] == ["included"] * 4
    assert seen == [source.name for source in sources]
    assert all(".." not in info.key for info in house.store.list())
    assert not (tmp_path / "etc").exists()
    with house.database.read() as session:
        assert session.query(ImageSetMember).filter_by(caption="smiling").one().source_name == "a.jpg"


def test_the_profile_decides_what_is_too_small(house: House) -> None:
    house.put(photographs(5))
    assert {file.state for file in house.take_in(profile=PROFILES["flux"]).files} == {"excluded"}


# Models


def test_a_folder_without_description_is_a_person(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    with house.database.read() as session:
        model = session.query(UserModel).one()
        user = session.query(User).one()
    assert (model.user_id, model.model_type, model.trigger_word) == (KEY, "person", "user50c")
    assert (user.is_house, user.active_model_id) == (False, model.id)


def test_a_style_belongs_to_the_house(house: House) -> None:
    house.put({"model.toml": b'model_type = "style"\nmodel_name = "Retro"', **photographs(5)}, "style_1")
    house.take_in("style_1")
    with house.database.read() as session:
        model = session.query(UserModel).one()
        user = session.query(User).one()
    assert (model.model_name, model.trigger_word, model.user_id) == ("Retro", "style1", "house")
    assert (user.is_house, user.active_model_id) == (True, None)


def test_the_description_tells_user_and_gender(house: House) -> None:
    described = b'user_id = "7"\nemail = "a@example.com"\ngender = "woman"\nis_test = true'
    house.put({"model.toml": described, **photographs(5)})
    house.take_in()
    with house.database.read() as session:
        model = session.query(UserModel).one()
        assert session.query(User).one().email == "a@example.com"
    assert (model.gender, model.is_test, model.trigger_word) == ("woman", True, "user7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"model_type = painting", "model.toml is not valid TOML"),
        (b'model_type = "painting"', "model_type.*person.*object.*style"),
        (b'colour = "red"', "colour.*Known entries are user_id"),
        (b"\xff\xfe", "not UTF-8"),
        (b"is_test = 3", "is_test"),
    ],
)
def test_a_wrong_description_names_the_file_the_entry_and_the_remedy(
    house: House, text: bytes, said: str
) -> None:
    house.put({"model.toml": text, **photographs(5)})
    with pytest.raises(IntakeError, match=said) as raised:
        house.take_in()
    assert "model.toml" in str(raised.value)
    assert house.counts() == (0, 0, 0)


def test_a_folder_that_cannot_name_a_model_says_how_to_rename_it(house: House) -> None:
    house.put(photographs(5), "maria@example.com")
    with pytest.raises(IntakeError, match="Rename it"):
        house.take_in("maria@example.com")


def test_a_model_keeps_its_trigger_word_and_owner(house: House) -> None:
    with house.database.begin() as session:
        first = ensure_model(session, KEY, None, house.now)
        again = ensure_model(session, KEY, ModelDescription(user_id="8"), house.now)
        assert first is again
        assert again.user_id == KEY


def test_a_trigger_word_in_another_case_is_taken_too(house: House) -> None:
    with house.database.begin() as session:
        ensure_model(session, "user-50c", None, house.now).trigger_word = "USER50C"
        session.flush()
        assert ensure_model(session, "50c", None, house.now).trigger_word == "user50cb"
