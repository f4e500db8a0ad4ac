"""Files and folders that only their owner may read, written so that a crash leaves the old one or the new one.

Photos of faces are biometric data, so folders are 0700 and files 0600 whatever the umask. Knows nothing of
object stores.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def make_private_folder(folder: Path) -> None:
    """Create ``folder`` and its missing parents, each 0700; folders that exist keep their mode."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=FOLDER_MODE)


@contextmanager
def private_temporary_file(folder: Path, prefix: str = ".") -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in ``folder``, open for writing; removed on leaving unless it was renamed away."""
    path = folder / f"{prefix}{secrets.token_hex(8)}.tmp"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def flush_to_disk(file: BinaryIO) -> None:
    """Return once the file's bytes are on the disk: a full disk may show itself only here."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make a rename or link inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private_file(path: Path, pieces: Iterator[bytes]) -> None:
    """Write ``path`` whole, through a temporary file beside it."""
    with private_temporary_file(path.parent, f".{path.name[:100]}.") as (file, temporary):
        for piece in pieces:
            file.write(piece)
        flush_to_disk(file)
        temporary.replace(path)
    flush_folder(path.parent)
