"""The training_versions.json files under one folder: found, read and replaced without ever leaving that folder.

Every step down is opened relative to the step before and never through a symbolic link, so that neither a link nor
`..` nor a folder swapped while we work leads elsewhere. What the files say is not judged here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

NAME = "training_versions.json"
MAX_BYTES = 32 * 1024 * 1024
"""A real file has kilobytes; one of hundreds of megabytes is something else."""

_TEMPORARY = re.compile(re.escape(f".{NAME}.") + r"[0-9a-f]{16}\.tmp")
_BACKUP = re.compile(re.escape(f"{NAME}.backup-") + r"([0-9]{1,6})")
_UNSEARCHED = frozenset({".git", "node_modules", "__pycache__"})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe of that name must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileRefused(Exception):
    """A file is left alone; the message says why."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left alone."""

    path: str
    """Relative to the base folder."""
    reason: str


class LegacyTree:
    """One base folder, held open while it is worked on."""

    def __init__(self, base: Path) -> None:
        """`base` itself may be a link: it is what the caller named. NotADirectoryError where it is no folder."""
        self.base = base.expanduser().resolve()
        self._fd = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> LegacyTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def find(self) -> Iterator[str | Skipped]:
        """Every file of the name, as its path relative to the base, in order; links are named, not followed."""
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                with self.folder(folder) as descriptor:
                    found, below = _list(descriptor, folder)
            except OSError as error:
                yield Skipped(folder or ".", f"a folder that cannot be read: {error.strerror}")
                continue
            yield from found
            pending.extend(reversed(below))

    @contextmanager
    def folder(self, relative: str) -> Iterator[int]:
        """A descriptor of a folder below the base ("" is the base). FileRefused for a path that leaves it."""
        descriptor = os.dup(self._fd)
        try:
            for part in relative.split("/") if relative else ():
                if part in ("", ".", ".."):
                    raise FileRefused(f"a path that leaves {self.base}")
                deeper = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def file_folder(self, path: str) -> Iterator[int]:
        """The folder of a file, by the file's path. FileRefused where it is gone or behind a link."""
        folder, _, name = path.rpartition("/")
        if name != NAME:
            raise FileRefused(f"not a {NAME}")
        try:
            with self.folder(folder) as descriptor:
                yield descriptor
        except (NotADirectoryError, FileNotFoundError) as error:
            raise FileRefused("its folder is gone, or a symbolic link") from error

    def read(self, path: str) -> bytes:
        """The bytes of a file. FileRefused where it may not or cannot be read."""
        with self.file_folder(path) as folder:
            return read_in(folder)


def read_in(folder: int) -> bytes:
    """The bytes of the file in this folder."""
    try:
        descriptor = os.open(NAME, _FILE, dir_fd=folder)
    except FileNotFoundError:
        raise FileRefused("the file is gone") from None
    except OSError as error:
        raise FileRefused(_why(error)) from error
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise FileRefused("not a regular file")
        if facts.st_size > MAX_BYTES:
            raise FileRefused(
                f"{facts.st_size:,} bytes; a file of training versions has at most {MAX_BYTES:,}"
            )
        try:
            return file.read()
        except OSError as error:
            raise FileRefused(_why(error)) from error


@contextmanager
def locked(folder: int) -> Iterator[None]:
    """One process at a time in this folder. The lock is on the folder itself: no file is left behind."""
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def next_backup(folder: int) -> str:
    """The name for the next backup: one more than the highest there is, or the one of a run that was killed."""
    numbers = [int(found[1]) for name in os.listdir(folder) if (found := _BACKUP.fullmatch(name))]
    if numbers and _is_copy(folder, f"{NAME}.backup-{max(numbers)}"):
        return f"{NAME}.backup-{max(numbers)}"
    return f"{NAME}.backup-{max(numbers, default=0) + 1}"


def replace_in(folder: int, content: bytes, backup: str) -> None:
    """Put `content` in the file's place, and the file as it was under `backup`: all of it or nothing.

    The folder is locked by the caller. The backup is the old file itself, so undoing brings back every byte and
    the times too. Raises FileRefused where the backup's name is taken, OSError where the folder cannot be written.
    """
    for name in os.listdir(folder):
        if _TEMPORARY.fullmatch(name):  # of a run that was killed: nobody else writes while we hold the lock
            os.unlink(name, dir_fd=folder)
    before = os.stat(NAME, dir_fd=folder, follow_symlinks=False)
    temporary = f".{NAME}.{secrets.token_hex(8)}.tmp"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            with suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fsync(descriptor)
        _keep(folder, backup)
        os.replace(temporary, NAME, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def restore_in(folder: int, backup: str, expected: str) -> None:
    """Put the backup back in the file's place. FileRefused where the backup is gone or is not what it was."""
    try:
        descriptor = os.open(backup, _FILE, dir_fd=folder)
    except OSError as error:
        raise FileRefused(f"its backup {backup} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if digest(file.read()) != expected:
            raise FileRefused(f"its backup {backup} was changed")
    os.replace(backup, NAME, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def drop_unused_backup(folder: int, backup: str) -> None:
    """Remove a second name of the unchanged file, which a run that was killed left behind."""
    if _is_copy(folder, backup):
        os.unlink(backup, dir_fd=folder)
        os.fsync(folder)


def _keep(folder: int, backup: str) -> None:
    try:
        os.link(NAME, backup, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if not _is_copy(folder, backup):
            raise FileRefused(f"{backup} was made by somebody else meanwhile") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        # A file system without hard links.
        _write_copy(folder, read_in(folder), backup)


def _write_copy(folder: int, content: bytes, name: str) -> None:
    temporary = f".{NAME}.{secrets.token_hex(8)}.tmp"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _is_copy(folder: int, name: str) -> bool:
    """Whether the file of that name is, or says, the same as the file itself."""
    try:
        one = os.stat(NAME, dir_fd=folder, follow_symlinks=False)
        other = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if os.path.samestat(one, other):
            return True
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return one.st_size == other.st_size and file.read() == read_in(folder)


def _list(descriptor: int, folder: str) -> tuple[list[str | Skipped], list[str]]:
    prefix = f"{folder}/" if folder else ""
    found: list[str | Skipped] = []
    below = []
    with os.scandir(descriptor) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        if entry.name in _UNSEARCHED:
            continue
        if entry.is_symlink():
            # Any folder: what lies below it would be missed without a word.
            if entry.name == NAME or _is_folder(descriptor, entry.name):
                found.append(Skipped(path, "a symbolic link, which is not followed"))
        elif entry.is_dir():
            if entry.name == NAME:
                found.append(Skipped(path, "a folder, not a file"))
            below.append(path)
        elif entry.name == NAME:
            found.append(path)
    return found, below


def _is_folder(descriptor: int, link: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(link, dir_fd=descriptor).st_mode)
    except OSError:
        return False


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:  # O_NOFOLLOW met a link
        return "a symbolic link, which is not followed"
    return f"cannot be read: {error.strerror}"
