"""The bytes of a training ZIP, held against Python's own writer and readers."""

import io
import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.archives import (
    TrainingImage,
    TrainingZipEntry,
    TrainingZipError,
    entries_of,
    zip_size,
    zip_stream,
)
from lora_pipeline.archives.zip_format import HELD_BYTES
from lora_pipeline.objects import ObjectStore

MIB = 1024**2
CRC_OF_4097_MIB_OF_ZEROS = 0xC6A48B28
"""A wrong one would be noticed: the writer checks what it reads against it."""


def entry(name: str, data: bytes = b"bytes", crc32: int | None = None) -> TrainingZipEntry:
    return TrainingZipEntry(name, len(data), lambda: io.BytesIO(data), crc32)


def written(entries: list[TrainingZipEntry]) -> bytes:
    return b"".join(zip_stream(entries))


def as_zipfile_writes(files: dict[str, bytes]) -> bytes:
    """The oracle: zipfile on a seekable file, with the fixed date, system and mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=5000), st.none() | st.text(min_size=1)),
        min_size=1,
        max_size=12,
    )
)
def test_the_bytes_are_those_of_pythons_writer(images: list[tuple[bytes, str | None]]) -> None:
    sources = [TrainingImage(len(data), partial(io.BytesIO, data), caption) for data, caption in images]
    files = {f"{number:03}.jpg": data for number, (data, _) in enumerate(images)}
    files |= {f"{n:03}.txt": caption.encode() for n, (_, caption) in enumerate(images) if caption is not None}
    entries = entries_of(sources)
    assert written(entries) == as_zipfile_writes(files)
    assert zip_size(entries) == len(written(entries))


def test_the_same_set_in_another_order_gives_the_same_bytes() -> None:
    entries = [entry("b.jpg", b"2"), entry("a.jpg", b"1"), entry("a.txt", b"one"), entry("B2.png", b"3")]
    assert written(entries) == written(entries[::-1])
    assert zipfile.ZipFile(io.BytesIO(written(entries))).namelist() == ["B2.png", "a.jpg", "a.txt", "b.jpg"]


def test_a_known_crc_changes_nothing() -> None:
    data = os.urandom(100_000)
    assert written([entry("a.jpg", data)]) == written([entry("a.jpg", data, zlib.crc32(data))])


def test_an_image_too_large_to_hold_is_read_in_pieces() -> None:
    size = HELD_BYTES + 12_345
    opened = []

    def pieces() -> Iterator[bytes]:
        opened.append(1)
        for start in range(0, size, 1_000_000):
            yield bytes([start % 251]) * min(1_000_000, size - start)

    large = TrainingZipEntry("a.jpg", size, pieces)
    with zipfile.ZipFile(io.BytesIO(written([large, entry("b.jpg")]))) as archive:
        assert archive.testzip() is None
        assert archive.read("a.jpg") == b"".join(pieces())
    assert len(opened) == 3


def test_other_readers_can_read_it(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(
        written([entry("000.jpg", os.urandom(9999)), entry("000.txt", "Ü".encode())])
    )
    readers = [
        command for command in (["unzip", "-t"], ["7z", "t"], ["bsdtar", "-tf"]) if shutil.which(command[0])
    ]
    if not readers:
        pytest.skip("no other reader of ZIP files on this machine")
    for command in readers:
        done = subprocess.run([*command, str(tmp_path / "set.zip")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_beyond_four_gibibytes_the_numbers_go_on(tmp_path: Path) -> None:
    """Written sparsely: the zeros of a 4 GiB image are skipped over, so that the disk holds a few kilobytes."""
    zeros = bytes(1024 * 1024)
    entries = [
        TrainingZipEntry(
            "000.jpg", 4097 * MIB, lambda: (zeros for _ in range(4097)), CRC_OF_4097_MIB_OF_ZEROS
        ),
        entry("001.jpg", b"after the first four"),
        entry("001.txt", b"a caption"),
    ]
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        for piece in zip_stream(entries):
            file.seek(len(piece), 1) if piece is zeros else file.write(piece)
    assert path.stat().st_size == zip_size(entries)
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [4097 * MIB, 20, 9]
        assert archive.getinfo("001.jpg").header_offset > 4097 * MIB
        assert archive.read("001.jpg") == b"after the first four"
        with archive.open("000.jpg") as large:
            assert large.read(10) == bytes(10)


def test_more_files_than_sixteen_bits_count() -> None:
    entries = [entry(f"{number:05}.jpg", b"x", zlib.crc32(b"x")) for number in range(66_000)]
    data = written(entries)
    assert len(data) == zip_size(entries)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 66_000
        assert archive.read("65999.jpg") == b"x"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["../a.jpg"], "'../a.jpg' is not a plain file name"),
        (["a/b.jpg"], "'a/b.jpg' is not a plain file name"),
        (["._a.jpg"], "'._a.jpg' is not a plain file name"),
        ([".a.jpg"], "'.a.jpg' is not a plain file name"),
        (["é.jpg"], "'é.jpg' is not a plain file name"),
        (["a.JPG"], "'a.JPG' is not a plain file name"),
        (["a"], "'a' is not a plain file name"),
        (["a.b.jpg"], "'a.b.jpg' is not a plain file name"),
        (["a.jpg\n"], "is not a plain file name"),
        (["a.heic"], "'a.heic' is neither an image that trainers read"),
        (["a.gif", "b.jpg"], "'a.gif' is neither an image that trainers read"),
        (["a.jpg", "a.png"], "'a.jpg' and 'a.png' have the same stem"),
        (["a.jpg", "A.jpg"], "'A.jpg' and 'a.jpg' have the same stem"),
        (["a.jpg", "a.jpg"], "'a.jpg' and 'a.jpg' have the same stem"),
        (["a.jpg", "a.txt", "A.txt"], "'A.txt' and 'a.txt' have the same stem"),
        (["a.jpg", "b.txt"], "'b.txt' belongs to no image"),
        (["a.txt"], "there is no image in it"),
        ([], "there is no image in it"),
    ],
)
def test_what_a_trainer_would_trip_over_is_refused_before_anything_is_read(
    names: list[str], problem: str
) -> None:
    entries = [TrainingZipEntry(name, 1, unreadable) for name in names]
    for call in (zip_stream, zip_size):
        with pytest.raises(TrainingZipError, match=r"^Failed to create training ZIP: ") as raised:
            call(entries)
        assert problem in str(raised.value)
        assert "Give each image one plain name such as 000.jpg" in str(raised.value)


def unreadable() -> Iterator[bytes]:
    raise AssertionError("this must not be read")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(TrainingZipError) as raised:
        zip_stream([entry("a b.jpg"), entry("c.bmp"), entry("d.jpg", b"")])
    for name in ("'a b.jpg'", "'c.bmp'", "'d.jpg' is empty"):
        assert name in str(raised.value)


@pytest.mark.parametrize("size", [1, 4, 6, 100])
@pytest.mark.parametrize("crc32", [None, zlib.crc32(b"bytes")])
def test_an_image_of_another_size_than_announced_is_an_error(size: int, crc32: int | None) -> None:
    wrong = TrainingZipEntry("a.jpg", size, lambda: [b"by", b"tes"], crc32)
    with pytest.raises(
        TrainingZipError, match=rf"a\.jpg should have {size} bytes and has (5|more)\. The image changed"
    ):
        written([wrong])


def test_an_image_that_changed_between_two_readings_is_an_error() -> None:
    with pytest.raises(TrainingZipError, match=r"the bytes of a\.jpg have changed"):
        written([entry("a.jpg", b"bytes", zlib.crc32(b"BYTES"))])


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, object_store: ObjectStore) -> None:
    gone = TrainingZipEntry("000.jpg", 5, lambda: (tmp_path / "gone.jpg").open("rb"))
    with pytest.raises(TrainingZipError, match=r"000\.jpg cannot be read: .*No such file.*gone\.jpg"):
        written([gone])
    missing = TrainingZipEntry("000.jpg", 5, lambda: object_store.stream("normalised/gone.jpg"))
    with pytest.raises(
        TrainingZipError, match=r"000\.jpg cannot be read: .*normalised/gone\.jpg: no such object"
    ):
        written([missing])


def test_every_file_that_was_opened_is_closed(tmp_path: Path) -> None:
    opened = []

    def file() -> io.BufferedReader:
        opened.append((tmp_path / "a.jpg").open("rb"))
        return opened[-1]

    (tmp_path / "a.jpg").write_bytes(b"bytes")
    written([TrainingZipEntry("a.jpg", 5, file)])
    with pytest.raises(TrainingZipError):
        written([TrainingZipEntry("a.jpg", 4, file)])
    assert len(opened) == 2
    assert all(handle.closed for handle in opened)


def test_a_thousand_images_are_numbered_so_that_they_sort() -> None:
    images = [TrainingImage(1, lambda: [b"x"], "c", extension="png") for _ in range(1001)]
    names = [item.name for item in entries_of(images)]
    assert names[:2] == ["0000.png", "0000.txt"]
    assert names[-1] == "1000.txt"
    assert names == sorted(names)
