"""What holds for every object store, so that a pipeline moved from a folder to S3 behaves the same."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lora_pipeline.objects import InvalidKey, ObjectExists, ObjectNotFound, ObjectStore
from lora_pipeline.objects.s3 import PART_SIZE

ODD_KEYS = [
    "a b.jpg",
    "Grüße/Übung.jpg",
    "selfie 🤳.jpg",
    "a+b",
    "a%20b",
    "a%2Fb",
    "100%",
    "a#b",
    "a?b=c&d",
    "a\\b",
    "~a",
    "...",
    ".hidden",
    "..a/b..",
    "e\u0301",
    "'\"<>|*",
    "x" * 200 + "/" + "y" * 200,
]


def pieces(total: int, size: int = 700_001) -> Iterator[bytes]:
    """`total` bytes that repeat nowhere near a part's length, in pieces that divide nothing evenly."""
    block = bytes(range(256)) * (size // 256 + 2)
    for start in range(0, total, size):
        offset = start % 251
        yield block[offset : offset + min(size, total - start)]


def keys_below(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_but_legal_key_comes_back_word_for_word(object_store: ObjectStore, key: str) -> None:
    object_store.put_bytes(key, b"bytes")
    assert object_store.get_bytes(key) == b"bytes"
    assert object_store.head(key).key == key
    assert keys_below(object_store) == [key]
    assert object_store.key_of(object_store.address(key)) == key
    object_store.delete(key)
    assert keys_below(object_store) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../../b",
        "a/./b",
        "a\x00b",
        "a\nb",
        "a\x7f",
        "\ud800",
        "é" * 600,
    ],
)
def test_a_key_that_could_escape_or_get_lost_is_refused_everywhere(
    object_store: ObjectStore, key: str
) -> None:
    for call in (
        lambda: object_store.put_bytes(key, b""),
        lambda: object_store.put_stream(key, []),
        lambda: object_store.get_bytes(key),
        lambda: object_store.get_range(key, 0, 1),
        lambda: object_store.stream(key),
        lambda: object_store.head(key),
        lambda: object_store.delete(key),
        lambda: object_store.delete_many([key]),
        lambda: object_store.presign_get(key, timedelta(hours=1)),
        lambda: object_store.address(key),
    ):
        with pytest.raises(InvalidKey, match="object key"):
            call()


def test_what_is_known_of_an_object(object_store: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    object_store.put_bytes("a/b", b"12345", metadata={"Sha256": "ab" * 32, "note": "two words"})
    info = object_store.head("a/b")
    assert (info.key, info.size) == ("a/b", 5)
    assert info.metadata == {"sha256": "ab" * 32, "note": "two words"}
    assert before < info.last_modified < datetime.now(UTC) + timedelta(seconds=2)
    object_store.put_bytes("a/b", b"54321")
    again = object_store.head("a/b")
    assert again.etag != info.etag
    assert again.metadata == {}


@pytest.mark.parametrize(
    "metadata",
    [{"a": "ü"}, {"a": "x\ny"}, {"a": " x"}, {"a": ""}, {"": "x"}, {"a b": "x"}, {"Content-Type": "x"}],
)
def test_metadata_that_s3_could_not_give_back_is_refused(
    object_store: ObjectStore, metadata: dict[str, str]
) -> None:
    with pytest.raises(InvalidKey):
        object_store.put_bytes("a", b"", metadata=metadata)
    assert keys_below(object_store) == []


def test_a_create_only_write_never_replaces(object_store: ObjectStore) -> None:
    object_store.put_bytes("k", b"first", create_only=True, metadata={"by": "first"})
    with pytest.raises(ObjectExists, match="an object with this key exists"):
        object_store.put_bytes("k", b"second", create_only=True, metadata={"by": "second"})
    with pytest.raises(ObjectExists):
        object_store.put_stream("k", pieces(PART_SIZE * 2), create_only=True)
    assert object_store.get_bytes("k") == b"first"
    assert object_store.head("k").metadata == {"by": "first"}
    object_store.put_bytes("k", b"third")
    assert object_store.get_bytes("k") == b"third"


@pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE + 12_345])
def test_a_stream_arrives_whole_at_every_size(object_store: ObjectStore, tmp_path: Path, size: int) -> None:
    expected = b"".join(pieces(size))
    assert len(expected) == size
    object_store.put_stream("pieces", pieces(size), metadata={"m": "1"})
    object_store.put_stream("file", io.BytesIO(expected))
    (tmp_path / "source").write_bytes(expected)
    object_store.put_file("path", tmp_path / "source", create_only=True)
    for key in ("pieces", "file", "path"):
        assert object_store.head(key).size == size
        assert b"".join(object_store.stream(key, 100_000)) == expected
    assert object_store.head("pieces").metadata == {"m": "1"}
    object_store.download("path", tmp_path / "sub" / "copy")
    assert (tmp_path / "sub" / "copy").read_bytes() == expected
    assert (tmp_path / "sub" / "copy").stat().st_mode & 0o777 == 0o600


class SourceBroke(Exception):
    pass


@pytest.mark.parametrize(
    "error", [SourceBroke("boom"), FileNotFoundError(2, "photo is gone"), ValueError("odd")]
)
@pytest.mark.parametrize("after", [0, 3 * PART_SIZE])
def test_a_source_that_fails_stores_nothing_and_keeps_its_own_error(
    object_store: ObjectStore, after: int, error: Exception
) -> None:
    def failing() -> Iterator[bytes]:
        yield from pieces(after)
        raise error

    object_store.put_bytes("kept", b"old")
    for key in ("new", "kept"):
        with pytest.raises(type(error)) as raised:
            object_store.put_stream(key, failing())
        assert raised.value is error
    assert object_store.get_bytes("kept") == b"old"
    assert keys_below(object_store) == ["kept"]


def test_ranges_are_cut_where_the_object_ends(object_store: ObjectStore) -> None:
    object_store.put_bytes("k", b"0123456789")
    assert object_store.get_range("k", 2, 3) == b"234"
    assert object_store.get_range("k", 8, 100) == b"89"
    assert object_store.get_range("k", 3, 0) == b""
    assert object_store.get_range("k", 10, 5) == b""
    assert object_store.get_range("k", 999, 5) == b""


def test_what_is_missing_is_said_to_be_missing(object_store: ObjectStore, tmp_path: Path) -> None:
    object_store.put_bytes("folder/file", b"")
    for key in ("nothing", "folder", "folder/file/below", "folder/other"):
        for call in (object_store.get_bytes, object_store.stream, object_store.head):
            with pytest.raises(ObjectNotFound, match="no such object"):
                call(key)
        with pytest.raises(ObjectNotFound):
            object_store.get_range(key, 0, 1)
        with pytest.raises(ObjectNotFound):
            object_store.download(key, tmp_path / "copy")
        object_store.delete(key)
    assert not (tmp_path / "copy").exists()
    assert keys_below(object_store) == ["folder/file"]


def test_a_listing_is_by_folder_and_in_the_order_of_keys(object_store: ObjectStore) -> None:
    keys = [
        "users/1/a",
        "users/10/a",
        "users/1",
        "users/1-b",
        "users/1.b",
        "users/1/b/c",
        "users/1/é",
        "Z",
        "a",
    ]
    if object_store.root.startswith("file"):
        keys.remove("users/1")  # a folder cannot also be a file
    for key in keys:
        object_store.put_bytes(key, key.encode(), metadata={"m": "1"})
    found = list(object_store.list())
    assert [info.key for info in found] == sorted(keys, key=str.encode)
    assert all(info.size == len(info.key.encode()) for info in found)
    for prefix in ("users/1", "users/1/"):
        assert keys_below(object_store, prefix) == ["users/1/a", "users/1/b/c", "users/1/é"]
    assert keys_below(object_store, "nothing/here") == []
    assert keys_below(object_store, "users/1/a") == []
    with pytest.raises(InvalidKey):
        object_store.list("../elsewhere")


def test_an_empty_object_is_listed(object_store: ObjectStore) -> None:
    object_store.put_bytes("folder/empty", b"")
    assert keys_below(object_store) == ["folder/empty"]
    assert keys_below(object_store, "folder") == ["folder/empty"]
    assert object_store.get_bytes("folder/empty") == b""


def test_many_objects_go_at_once_and_a_missing_one_is_no_error(object_store: ObjectStore) -> None:
    for number in range(20):
        object_store.put_bytes(f"n/{number}", b"x")
    object_store.delete_many(f"n/{number}" for number in range(1, 1_100))
    assert keys_below(object_store) == ["n/0"]
    object_store.delete_many([])


def test_an_address_outside_the_store_has_no_key_here(object_store: ObjectStore) -> None:
    root = object_store.root
    assert object_store.address("a/b") == f"{root}/a/b"
    for address in (root, f"{root}/", f"{root}-other/a", f"{root}/../a", "https://example.com/a", "", "a/b"):
        assert object_store.key_of(address) is None
