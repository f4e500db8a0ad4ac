"""The object store in a local folder: plain files under their keys, private, written atomically.

It is written on the operating system rather than on the S3 client's local store because that one follows
symbolic links out of the folder, creates files that everybody may read, and has no user metadata.
"""

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import FileIO
from json import dumps, loads
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lora_pipeline.objects.chunks import ChunkSource
from lora_pipeline.objects.download import save_download
from lora_pipeline.objects.errors import InvalidKey, StoreRefused
from lora_pipeline.objects.keys import check_key, check_metadata, check_prefix
from lora_pipeline.objects.local_errors import explain_os_error
from lora_pipeline.objects.private_files import (
    flush_folder,
    flush_to_disk,
    make_private_folder,
    private_temporary_file,
    write_private_file,
)
from lora_pipeline.objects.store import READ_SIZE, Chunks, ObjectInfo

OWN_FOLDER = ".store"
"""Inside the root: unfinished writes and user metadata. Never a key, never listed."""

ABANDONED_AFTER = timedelta(days=1)
"""An unfinished write this old belongs to a process that died: its bytes (maybe a face) must not stay behind."""

_MOVES = 20


class LocalObjectStore:
    """An ObjectStore (see store.py) in a folder, which is created by the first write.

    Two keys of which one is a folder of the other (``a`` and ``a/b``) cannot both exist, unlike in S3. A crash
    between storing an object and its user metadata leaves the object without metadata, never with another's.
    """

    can_presign = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self._swept = False

    @property
    def root(self) -> str:
        return self.folder.as_uri()

    def address(self, key: str) -> str:
        return self._path(key, look=False).as_uri()

    def key_of(self, address: str) -> str | None:
        parts = urlsplit(address)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            return None
        try:
            key = Path(unquote(parts.path)).relative_to(self.folder).as_posix()
            self._path(key, look=False)
        except (ValueError, InvalidKey):
            return None
        return key

    def put_bytes(
        self,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.put_stream(key, [data], create_only=create_only, metadata=metadata, content_type=content_type)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        with path.open("rb") as file:
            self.put_stream(key, file, create_only=create_only, metadata=metadata, content_type=content_type)

    def put_stream(
        self,
        key: str,
        chunks: Chunks,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,  # noqa: ARG002 - a file has no content type; its name tells
    ) -> None:
        target = self._path(key)
        checked = check_metadata(metadata)
        source = ChunkSource(chunks)
        with self._explained(key, source):
            unfinished = self.folder / OWN_FOLDER / "unfinished"
            make_private_folder(unfinished)
            self._sweep_once(unfinished)
            with private_temporary_file(unfinished) as (file, temporary):
                for piece in source:
                    file.write(piece)
                flush_to_disk(file)
                if not create_only:
                    self._metadata_path(key).unlink(missing_ok=True)
                _publish(temporary, target, create_only=create_only)
            if checked:
                self._write_metadata(key, checked)

    def get_bytes(self, key: str) -> bytes:
        return b"".join(self.stream(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        path = self._path(key)
        with self._explained(key), _open_regular(path) as file:
            return os.pread(file.fileno(), length, start)

    def stream(self, key: str, chunk_size: int = READ_SIZE) -> Iterator[bytes]:
        path = self._path(key)
        with self._explained(key):
            file = _open_regular(path)
        return self._pieces(key, file, chunk_size)

    def _pieces(self, key: str, file: FileIO, chunk_size: int) -> Iterator[bytes]:
        with file:
            while True:
                with self._explained(key):
                    piece = file.read(chunk_size)
                if not piece:
                    return
                yield piece

    def download(self, key: str, path: Path) -> None:
        save_download(path, self.stream(key))

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._explained(key):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file")
            return _info(key, status, self._read_metadata(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = check_prefix(prefix)
        start = self._path(folder) if folder else self.folder
        return self._walk(start, f"{folder}/" if folder else "")

    def _walk(self, folder: Path, prefix: str) -> Iterator[ObjectInfo]:
        for is_folder, entry in self._entries(folder, prefix):
            key = prefix + entry.name
            if is_folder:
                yield from self._walk(Path(entry.path), f"{key}/")
                continue
            with suppress(FileNotFoundError):
                yield _info(key, entry.stat(follow_symlinks=False), {})

    def _entries(self, folder: Path, prefix: str) -> Iterable[tuple[bool, os.DirEntry[str]]]:
        """Folders and regular files, no links, in the order in which S3 would list their keys."""
        with self._explained(prefix):
            try:
                with os.scandir(folder) as entries:
                    found = [(entry.is_dir(follow_symlinks=False), entry) for entry in entries]
            except (FileNotFoundError, NotADirectoryError):
                return []
        kept = [
            (is_folder, entry)
            for is_folder, entry in found
            if (is_folder or entry.is_file(follow_symlinks=False)) and (prefix or entry.name != OWN_FOLDER)
        ]
        return sorted(kept, key=lambda item: os.fsencode(item[1].name + ("/" if item[0] else "")))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained(key):
            if path.is_file():
                for part in (self._metadata_path(key), path):
                    part.unlink(missing_ok=True)
                    _remove_empty_folders(part.parent, self.folder)

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def presign_get(self, key: str, expires: timedelta) -> str | None:  # noqa: ARG002 - nothing to sign with
        check_key(key)
        return None

    def _path(self, key: str, *, look: bool = True) -> Path:
        """Where ``key`` lies; refuses what is not ours, and (with ``look``) any symbolic link on the way."""
        check_key(key)
        if key.split("/", 1)[0] == OWN_FOLDER:
            raise InvalidKey(
                f"object key {key!r}", f"{OWN_FOLDER!r} is the store's own folder", "Use another key"
            )
        path = self.folder / key
        if look and (link := _link_between(self.folder, path)) is not None:
            raise StoreRefused(
                path.as_uri(), f"{link} is a symbolic link", "Replace it by a real file or folder"
            )
        return path

    def _metadata_path(self, key: str) -> Path:
        # The suffix keeps the metadata of "a" (a file) apart from the folder that holds that of "a/b".
        return self.folder / OWN_FOLDER / "metadata" / f"{key}.json"

    def _write_metadata(self, key: str, metadata: Mapping[str, str]) -> None:
        path = self._metadata_path(key)
        make_private_folder(path.parent)
        write_private_file(path, iter([dumps(metadata, sort_keys=True).encode()]))

    def _read_metadata(self, key: str) -> dict[str, str]:
        try:
            found: dict[str, str] = loads(self._metadata_path(key).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def _sweep_once(self, unfinished: Path) -> None:
        if self._swept:
            return
        self._swept = True
        oldest = time.time() - ABANDONED_AFTER.total_seconds()
        for path in unfinished.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()

    @contextmanager
    def _explained(self, key: str, source: ChunkSource | None = None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if source is not None and source.error is error:
                raise
            raise explain_os_error(error, self.folder / key, writing=source is not None) from error


def _publish(temporary: Path, target: Path, *, create_only: bool) -> None:
    """Give a finished file its name."""
    for attempt in reversed(range(_MOVES)):
        try:
            make_private_folder(target.parent)
            if create_only:
                os.link(temporary, target)
            else:
                temporary.replace(target)
            break
        except FileNotFoundError:  # a deletion elsewhere removed the folder that it had emptied
            if not attempt:
                raise
    with suppress(FileNotFoundError):  # deleted again already
        flush_folder(target.parent)


def _open_regular(path: Path) -> FileIO:
    # O_NONBLOCK: opening a named pipe must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return FileIO(descriptor, "rb")


def _link_between(root: Path, path: Path) -> Path | None:
    for part in [path, *path.parents]:
        if part == root:
            return None
        if part.is_symlink():
            return part
    return None


def _remove_empty_folders(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone: someone else is at work here
            return
        folder = folder.parent


def _info(key: str, status: os.stat_result, metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        etag=f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"',
        last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
        metadata=metadata,
    )
