"""Storing the ZIP for a submission, in a folder and in S3."""

import io
import zipfile
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from lora_pipeline.archives import (
    TrainingImage,
    TrainingZipEntry,
    TrainingZipError,
    entries_of,
    store_training_zip,
    submission_prefix,
    submission_zip_key,
    zip_size,
)
from lora_pipeline.archives.submission_zip import HELD_ZIP_BYTES
from lora_pipeline.objects import ObjectStore, open_store

TOKEN = "0123456789abcdef0123456789abcdef"


def photos(count: int = 3, size: int = 1000) -> list[TrainingZipEntry]:
    datas = [bytes([number]) * size for number in range(count)]
    return entries_of(
        [
            TrainingImage(size, partial(io.BytesIO, data), f"a photo of user50, number {number}")
            for number, data in enumerate(datas)
        ]
    )


@pytest.mark.parametrize("size", [1000, HELD_ZIP_BYTES // 3 + 1], ids=["held", "made twice"])
def test_the_key_is_the_token_and_the_hash_of_what_is_stored(object_store: ObjectStore, size: int) -> None:
    entries = photos(size=size)
    stored = store_training_zip(object_store, TOKEN, entries)
    data = object_store.get_bytes(stored.key)
    assert stored.key == f"submissions/{TOKEN}/{sha256(data).hexdigest()}.zip"
    assert stored.key == submission_zip_key(TOKEN, stored.sha256)
    assert stored.address == object_store.address(stored.key)
    assert stored.size == len(data) == zip_size(entries)
    assert stored.created
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert tuple(archive.namelist()) == stored.names
        assert archive.read("002.txt") == b"a photo of user50, number 2"


@pytest.mark.parametrize("size", [1000, 4_000_000])
def test_storing_the_same_set_again_succeeds_and_writes_nothing(object_store: ObjectStore, size: int) -> None:
    first = store_training_zip(object_store, TOKEN, photos(size=size))
    before = object_store.head(first.key)
    again = store_training_zip(object_store, TOKEN, photos(size=size)[::-1])
    assert not again.created
    assert (again.key, again.sha256, again.size) == (first.key, first.sha256, first.size)
    assert object_store.head(first.key) == before


def test_two_submissions_of_one_set_do_not_share_their_zip(object_store: ObjectStore) -> None:
    one = store_training_zip(object_store, TOKEN, photos())
    two = store_training_zip(object_store, "f" * 32, photos())
    assert one.sha256 == two.sha256
    object_store.delete_many(info.key for info in object_store.list(submission_prefix(TOKEN)))
    assert [info.key for info in object_store.list()] == [two.key]


def test_photos_kept_in_the_store_are_packed_from_there(object_store: ObjectStore) -> None:
    for number in range(3):
        object_store.put_bytes(f"users/1/{number}.jpg", bytes([number]) * 1000)
    images = [
        TrainingImage(
            info.size, partial(object_store.stream, info.key), f"a photo of user50, number {number}"
        )
        for number, info in enumerate(object_store.list("users/1"))
    ]
    assert store_training_zip(object_store, TOKEN, entries_of(images)).sha256 == (
        store_training_zip(object_store, TOKEN, photos()).sha256
    )


def test_a_photo_that_cannot_be_read_leaves_no_zip(object_store: ObjectStore, tmp_path: Path) -> None:
    entries = [*photos(1), TrainingZipEntry("001.jpg", 1000, lambda: (tmp_path / "gone.jpg").open("rb"))]
    with pytest.raises(TrainingZipError, match=r"Failed to create training ZIP: 001\.jpg cannot be read"):
        store_training_zip(object_store, TOKEN, entries)
    assert list(object_store.list()) == []


def test_a_photo_that_changes_while_it_is_sent_leaves_no_zip(object_store: ObjectStore) -> None:
    size = HELD_ZIP_BYTES // 3 + 1
    readings = count()

    def another_each_time() -> list[bytes]:
        return [bytes([next(readings)]) * size]

    entries = [*photos(2, size), TrainingZipEntry("002.jpg", size, another_each_time)]
    with pytest.raises(TrainingZipError, match=r"the bytes of 002\.jpg have changed"):
        store_training_zip(object_store, TOKEN, entries)
    assert list(object_store.list()) == []
    assert next(readings) == 2


def test_an_unreachable_bucket_is_named_with_its_cause_and_remedy() -> None:
    store = open_store(
        "s3://photos",
        endpoint_url="http://127.0.0.1:1",
        env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    )
    with pytest.raises(TrainingZipError) as raised:
        store_training_zip(store, TOKEN, photos())
    text = str(raised.value)
    assert text.startswith(
        f"Failed to create training ZIP: it cannot be stored at s3://photos/submissions/{TOKEN}/"
    )
    assert "http://127.0.0.1:1 is unreachable or failing: it refuses connections" in text
    assert text.endswith("Check AWS_ENDPOINT_URL and the network, then try again")


def test_a_zip_cut_short_by_others_is_not_taken_for_ours(object_store: ObjectStore) -> None:
    stored = store_training_zip(object_store, TOKEN, photos())
    object_store.put_bytes(stored.key, b"PK")
    with pytest.raises(TrainingZipError, match="has 2 bytes, not the"):
        store_training_zip(object_store, TOKEN, photos())


@pytest.mark.parametrize("token", ["", "a/b", "..", "a b", "a\n"])
def test_a_token_is_one_part_of_a_key(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        store_training_zip(open_store(str(tmp_path)), token, photos())
