"""Files uploaded to the provider: one file on disk each, its facts in a row, gone after a day."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lora_pipeline.simulator.clock import SimulatedClock, stamp
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import new_id

PAGE_LENGTH = 100


@dataclass(frozen=True)
class UploadedFile:
    """One stored file."""

    seq: int
    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_shown: float

    def json(self, base_url: str, lifetime_s: float) -> dict[str, Any]:
        """As the wire shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "content_type": self.content_type,
            "size": self.size,
            "etag": self.md5,
            "checksums": {"sha256": self.sha256, "md5": self.md5},
            "metadata": self.metadata,
            "created_at": stamp(self.created_shown),
            "expires_at": stamp(self.created_shown + lifetime_s),
            "urls": {"get": f"{base_url}/v1/files/{self.id}"},
        }


@dataclass(frozen=True)
class StoredBytes:
    """Bytes on disk that are not yet a file on the wire."""

    id: str
    size: int
    sha256: str
    md5: str


class Shelf:
    """Stores, finds and removes uploaded files."""

    def __init__(self, state: State, clock: SimulatedClock) -> None:
        self._state = state
        self._clock = clock

    def path(self, identity: str) -> Path:
        """Where the bytes of a file lie; the id is one that we made, never a name from outside."""
        return self._state.files / identity

    def keep(self, source: BinaryIO) -> StoredBytes:
        """Copy an upload to disk. Touches no row, so that it may run outside the event loop."""
        identity = new_id()
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        partial = self.path(f"{identity}.partial")
        with partial.open("wb") as out:
            while chunk := source.read(1 << 20):
                sha256.update(chunk)
                md5.update(chunk)
                size += len(chunk)
                out.write(chunk)
        partial.replace(self.path(identity))
        return StoredBytes(identity, size, sha256.hexdigest(), md5.hexdigest())

    def record(
        self, stored: StoredBytes, name: str, content_type: str, metadata: dict[str, Any]
    ) -> UploadedFile:
        """Make stored bytes a file that exists."""
        shown = self._clock.now().shown
        made = self._state.sql.execute(
            "INSERT INTO files (id, name, content_type, size, sha256, md5, metadata, created_shown) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                stored.id,
                name,
                content_type,
                stored.size,
                stored.sha256,
                stored.md5,
                json.dumps(metadata),
                shown,
            ),
        )
        seq = int(made.lastrowid or 0)
        return UploadedFile(
            seq, stored.id, name, content_type, stored.size, stored.sha256, stored.md5, metadata, shown
        )

    def find(self, identity: str, lifetime_s: float) -> UploadedFile | None:
        """A file that exists and has not expired."""
        row = self._state.sql.execute(
            "SELECT * FROM files WHERE id = ? AND created_shown > ?",
            (identity, self._clock.now().shown - lifetime_s),
        ).fetchone()
        return _file(row) if row else None

    def page(self, before: int | None, lifetime_s: float) -> list[UploadedFile]:
        """Up to one page and one more, newest first."""
        rows = self._state.sql.execute(
            "SELECT * FROM files WHERE seq < ? AND created_shown > ? ORDER BY seq DESC LIMIT ?",
            (before or 2**62, self._clock.now().shown - lifetime_s, PAGE_LENGTH + 1),
        ).fetchall()
        return [_file(row) for row in rows]

    def delete(self, identity: str) -> bool:
        """Remove a file; False where there is none."""
        changed = self._state.sql.execute("DELETE FROM files WHERE id = ?", (identity,))
        if changed.rowcount:
            self.path(identity).unlink(missing_ok=True)
        return bool(changed.rowcount)


def _file(row: sqlite3.Row) -> UploadedFile:
    values = dict(row)
    values["metadata"] = json.loads(values["metadata"])
    return UploadedFile(**values)
