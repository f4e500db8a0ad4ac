"""What a stretch of a listing says against what is stored of it. Rules only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from lora_pipeline.inventory.bucket_listing import ListedFile


class StoredFile(NamedTuple):
    """A file as the last listing left it stored, and listed then."""

    id: int
    key: str
    object_version: str
    etag: str
    size: int
    overwritten_at: datetime | None
    deleted_at: datetime | None


class Marked(NamedTuple):
    """A stored file with the marks it has now."""

    file: StoredFile
    overwritten_at: datetime | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs. Empty where nothing changed."""

    new: Sequence[ListedFile] = ()
    """Bytes that are not stored under this key."""
    marked: Sequence[Marked] = ()
    """Files that are still listed, and were overwritten, deleted or brought back."""
    gone: Sequence[Marked] = ()
    """Files that are no longer listed."""
    known_keys: frozenset[str] = field(default=frozenset())
    """Keys of `new` files under which other bytes are stored."""

    def __bool__(self) -> bool:
        return bool(self.new or self.marked or self.gone)

    @property
    def keys(self) -> frozenset[str]:
        """Every key that something changed under."""
        found = [file.key for file in self.new]
        return frozenset(found + [change.file.key for change in (*self.marked, *self.gone)])


def compare(listed: Sequence[ListedFile], stored: Sequence[StoredFile], now: datetime) -> Changes:
    """Hold one stretch's files against those stored in the same stretch.

    What makes a file the same is its key, object version, ETag and size together: never its time, which two files
    may share, and never an ETag alone.
    """
    left = {row[1:5]: row for row in stored}
    new: list[ListedFile] = []
    marked: list[Marked] = []
    for file in listed:
        row = left.pop(file[:4], None)
        if row is None:
            new.append(file)
        elif row[5:] != file[5:]:
            marked.append(Marked(row, file.overwritten_at, file.deleted_at))
    if not new and not left:
        return Changes(marked=marked)
    replaced = {file.key: file.modified for file in new if file.is_current and not file.object_version}
    gone = [_gone(row, replaced.get(row.key), now) for row in left.values()]
    stored_keys = {row.key for row in stored}
    return Changes(new, marked, gone, frozenset(file.key for file in new if file.key in stored_keys))


def _gone(row: StoredFile, replaced_at: datetime | None, now: datetime) -> Marked:
    """Overwritten where the key has new bytes and keeps no versions, else deleted, and since when."""
    if row.overwritten_at is not None:
        return Marked(row, row.overwritten_at, row.deleted_at or now)
    if replaced_at is not None and not row.object_version:
        return Marked(row, replaced_at, row.deleted_at)
    return Marked(row, None, row.deleted_at or now)
