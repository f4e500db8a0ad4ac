"""Where a photograph comes from: an object in an inbox, a file, or bytes somebody sent. Reading happens later, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from lora_pipeline.image_sets.names import shown
from lora_pipeline.objects.store import READ_SIZE, ObjectInfo, ObjectStore

MAX_CAPTION_BYTES = 10_000
_FINGERPRINT_LENGTH = 200


def _no_caption() -> str | None:
    return None


@dataclass(frozen=True)
class ImageSource:
    """One file on its way into a set. Making one reads nothing.

    `address` says where it was found, `fingerprint` changes when the file or its caption does: together they tell
    whether it has been taken in. `arrived_at` is when it came to lie there, not when it was photographed.
    """

    name: str
    address: str
    fingerprint: str
    arrived_at: datetime
    open: Callable[[], Iterable[bytes]]
    """Its bytes from the start; raises ObjectStoreError or OSError."""
    read_caption: Callable[[], str | None] = _no_caption


def source_in_store(
    store: ObjectStore, info: ObjectInfo, name: str, caption: ObjectInfo | None = None
) -> ImageSource:
    """An object of a store, with the object that holds its caption."""
    fingerprint = fingerprint_of(info, caption)
    return ImageSource(
        name=shown(name),
        address=store.address(info.key),
        fingerprint=fingerprint,
        arrived_at=max(_arrived_at(store, found) for found in (info, caption) if found),
        open=lambda: store.stream(info.key),
        read_caption=_no_caption if caption is None else lambda: _caption(store.stream(caption.key)),
    )


def source_from_path(path: Path) -> ImageSource:
    """A file that somebody named, with `<stem>.txt` beside it as its caption. Raises OSError where there is none."""
    status = path.stat()
    beside = path.with_suffix(".txt")
    return ImageSource(
        name=shown(path.name),
        address=path.absolute().as_uri(),
        fingerprint=f"{status.st_size}-{status.st_mtime_ns}",
        arrived_at=datetime.now(UTC),
        open=lambda: _pieces(path),
        read_caption=lambda: _caption(_pieces(beside)) if beside.is_file() else None,
    )


def source_from_file(name: str, file: BinaryIO) -> ImageSource:
    """What somebody sent, as an open file that stays open until it was read. The name is shown, never followed."""
    digest = hashlib.sha256()
    for piece in _from_the_start(file):
        digest.update(piece)
    sha256 = digest.hexdigest()
    return ImageSource(
        name=shown(name),
        address=f"upload:{sha256}/{shown(name)}",
        fingerprint=sha256,
        arrived_at=datetime.now(UTC),
        open=lambda: _from_the_start(file),
    )


def fingerprint_of(info: ObjectInfo, caption: ObjectInfo | None = None) -> str:
    """What changes when the object or its caption does, without reading either."""
    parts = [
        f"{found.size}-{found.etag or found.last_modified.isoformat()}" for found in (info, caption) if found
    ]
    text = "+".join(parts).replace('"', "")
    return text if len(text) <= _FINGERPRINT_LENGTH else hashlib.sha256(text.encode()).hexdigest()


def _arrived_at(store: ObjectStore, info: ObjectInfo) -> datetime:
    from lora_pipeline.objects.local import LocalObjectStore

    if not isinstance(store, LocalObjectStore):
        return info.last_modified
    # A copy may keep the old file's time of change, and a set would be thought quiet while it is being copied.
    try:
        status = (store.folder / info.key).lstat()
    except OSError:  # gone since it was listed; reading it will say so
        return info.last_modified
    return datetime.fromtimestamp(max(status.st_ctime, status.st_mtime), UTC)


def _pieces(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_SIZE):
            yield piece


def _from_the_start(file: BinaryIO) -> Iterable[bytes]:
    file.seek(0)
    while piece := file.read(READ_SIZE):
        yield piece


def _caption(pieces: Iterable[bytes]) -> str | None:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > MAX_CAPTION_BYTES:
            break
    text = data[:MAX_CAPTION_BYTES].decode("utf-8-sig", "replace").replace("\x00", "\ufffd").strip()
    return text or None
