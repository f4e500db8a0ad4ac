"""What only the local folder has: permissions, links, a disk that fills up, unfinished writes."""

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.objects import (
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    StoreRefused,
    open_store,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def test_only_the_owner_can_read_what_is_stored(folder_store: ObjectStore, folder: Path) -> None:
    before = os.umask(0)
    try:
        folder_store.put_bytes("users/1/selfie.jpg", b"face", metadata={"a": "b"})
    finally:
        os.umask(before)
    for path in [folder, *folder.rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == expected, path


def test_a_symbolic_link_leads_nowhere(folder_store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    folder_store.put_bytes("real", b"")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "file").symlink_to(tmp_path / "outside" / "secret")
    for key in ("folder/secret", "file", "folder/new"):
        for call in (folder_store.get_bytes, folder_store.stream, folder_store.head, folder_store.delete):
            with pytest.raises(StoreRefused, match="is a symbolic link"):
                call(key)
        with pytest.raises(StoreRefused, match="is a symbolic link"):
            folder_store.put_bytes(key, b"overwritten")
    with pytest.raises(StoreRefused):
        folder_store.list("folder")
    assert [info.key for info in folder_store.list()] == ["real"]
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]
    assert (tmp_path / "outside" / "secret").read_text() == "secret"


def test_what_is_no_file_is_no_object(folder_store: ObjectStore, folder: Path) -> None:
    folder_store.put_bytes("real", b"")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ObjectNotFound):
        folder_store.get_bytes("pipe")
    with pytest.raises(ObjectNotFound):
        folder_store.head("pipe")
    assert [info.key for info in folder_store.list()] == ["real"]


def test_a_key_cannot_be_both_a_file_and_a_folder(folder_store: ObjectStore) -> None:
    folder_store.put_bytes("a/b", b"1")
    with pytest.raises(StoreRefused, match="a file and a folder would have the same name"):
        folder_store.put_bytes("a/b/c", b"2")
    with pytest.raises(StoreRefused, match="a file and a folder would have the same name"):
        folder_store.put_bytes("a", b"2")
    assert folder_store.get_bytes("a/b") == b"1"


def test_the_stores_own_folder_is_out_of_reach(folder_store: ObjectStore) -> None:
    folder_store.put_bytes("a", b"1", metadata={"x": "y"})
    with pytest.raises(InvalidKey, match="the store's own folder"):
        folder_store.get_bytes(".store/metadata/a.json")
    assert [info.key for info in folder_store.list()] == ["a"]


def test_deleting_leaves_neither_metadata_nor_empty_folders(folder_store: ObjectStore, folder: Path) -> None:
    folder_store.put_bytes("submissions/token/x.zip", b"zip", metadata={"user": "1"})
    folder_store.put_bytes("kept", b"1")
    folder_store.delete("submissions/token/x.zip")
    assert [path.name for path in folder.iterdir() if path.name != ".store"] == ["kept"]
    assert [path.name for path in (folder / ".store").rglob("*")] == ["unfinished"]


def test_writers_and_deleters_of_one_folder_do_not_trip_over_each_other(folder_store: ObjectStore) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(40):
            folder_store.put_bytes(f"shared/folder/{number}", b"x")
            folder_store.delete(f"shared/folder/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert list(folder_store.list()) == []


def test_one_of_many_simultaneous_creators_wins(folder_store: ObjectStore) -> None:
    def create(number: int) -> bool:
        try:
            folder_store.put_bytes("k", str(number).encode() * 1000, create_only=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert folder_store.get_bytes("k") == str(won.index(True)).encode() * 1000


def test_what_a_dead_process_left_unfinished_is_removed_after_a_day(
    folder_store: ObjectStore, folder: Path
) -> None:
    unfinished = folder / ".store" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "yesterdays").write_bytes(b"half a face")
    os.utime(unfinished / "yesterdays", (time.time() - 90_000,) * 2)
    (unfinished / "todays").write_bytes(b"someone is writing this")
    folder_store.put_bytes("a", b"1")
    assert [path.name for path in unfinished.iterdir()] == ["todays"]


def test_a_write_that_was_killed_leaves_the_old_object(folder: Path, folder_store: ObjectStore) -> None:
    folder_store.put_bytes("k", b"old")
    script = f"""
import os
from lora_pipeline.objects import open_store
def dies():
    yield b"half of the new"
    os._exit(9)
open_store({str(folder)!r}).put_stream("k", dies())
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert folder_store.get_bytes("k") == b"old"
    assert [info.key for info in folder_store.list()] == ["k"]


FULL_DISK = """
mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" - "$1" <<'END'
import sys
from lora_pipeline.objects import StoreRefused, open_store
store = open_store(sys.argv[1])
store.put_bytes("small", b"kept")
try:
    store.put_stream("large", (bytes(65536) for _ in range(100)))
except StoreRefused as error:
    print(error)
print(store.get_bytes("small"), [info.key for info in store.list()])
try:
    open_store(sys.argv[1]).put_bytes("small", bytes(200_000))
    open_store(sys.argv[1]).put_bytes("again", bytes(200_000))
except StoreRefused as error:
    print("again", error.cause)
END
"""


def test_a_full_disk_is_said_in_words_and_costs_nothing_that_was_stored(tmp_path: Path) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run(
            [*namespace, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets no test mount a small disk")
    done = subprocess.run(
        [*namespace, "sh", "-c", FULL_DISK, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    first, second, third = done.stdout.splitlines() or [done.stderr, "", ""]
    assert first.startswith(
        f"{tmp_path.as_uri()}/large: the disk is full (No space left on device). Free some space"
    )
    assert second == "b'kept' ['small']"
    assert third == "again the disk is full (No space left on device)"


def test_a_folder_that_cannot_be_created_is_named() -> None:
    store = open_store("/proc/nothing-can-be-created-here")
    with pytest.raises(StoreRefused, match=r"here/a: its folder cannot be created"):
        store.put_bytes("a", b"")


def test_a_folder_signs_nothing(folder_store: ObjectStore) -> None:
    assert folder_store.can_presign is False
    assert folder_store.presign_get("a", timedelta(hours=1)) is None
