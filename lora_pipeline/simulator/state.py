"""The simulator's SQLite file: opening it, its tables, transactions. What the rows mean is told by who owns them.

One connection, used from the event loop alone: every statement takes microseconds, so there is nothing to lock.
WAL with synchronous=NORMAL keeps each committed row through a SIGKILL of the process; a power cut may lose the last.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS clock_segments (id INTEGER PRIMARY KEY, life REAL NOT NULL, shown REAL NOT NULL);
CREATE TABLE IF NOT EXISTS trainings (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    trainer TEXT NOT NULL,
    trainer_version TEXT NOT NULL,
    destination TEXT NOT NULL,
    input TEXT NOT NULL,
    base_url TEXT NOT NULL,
    webhook TEXT,
    webhook_events TEXT NOT NULL DEFAULT '',
    webhook_open INTEGER NOT NULL DEFAULT 0,
    start_sent INTEGER NOT NULL DEFAULT 0,
    created_shown REAL NOT NULL,
    created_life REAL NOT NULL,
    starts_life REAL NOT NULL,
    ends_life REAL NOT NULL,
    setup_s REAL NOT NULL,
    upload_s REAL NOT NULL,
    steps INTEGER NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'succeeded',
    error TEXT,
    settled INTEGER NOT NULL DEFAULT 0,
    archive TEXT NOT NULL DEFAULT 'skipped',
    images INTEGER,
    captions TEXT NOT NULL DEFAULT '{}',
    version_hash TEXT NOT NULL,
    weights_key TEXT NOT NULL UNIQUE,
    quirks TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS trainings_due ON trainings (ends_life) WHERE settled = 0;
CREATE INDEX IF NOT EXISTS trainings_waiting ON trainings (starts_life) WHERE settled = 0 AND archive = 'pending';
CREATE INDEX IF NOT EXISTS trainings_with_events ON trainings (seq) WHERE webhook_open = 1;
CREATE TABLE IF NOT EXISTS runpod_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    endpoint TEXT NOT NULL,
    input TEXT NOT NULL,
    webhook TEXT,
    webhook_open INTEGER NOT NULL DEFAULT 0,
    created_shown REAL NOT NULL,
    created_life REAL NOT NULL,
    timeout_s REAL NOT NULL,
    ttl_s REAL NOT NULL,
    attempt INTEGER NOT NULL,
    queued_life REAL NOT NULL,
    starts_life REAL NOT NULL,
    ends_life REAL NOT NULL,
    finishes_life REAL NOT NULL,
    setup_s REAL NOT NULL,
    upload_s REAL NOT NULL,
    steps INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    archive TEXT NOT NULL,
    images INTEGER,
    upload TEXT NOT NULL,
    size INTEGER,
    quirks TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS runpod_jobs_to_fetch ON runpod_jobs (starts_life) WHERE archive = 'pending';
CREATE INDEX IF NOT EXISTS runpod_jobs_to_upload ON runpod_jobs (ends_life) WHERE upload = 'pending';
CREATE INDEX IF NOT EXISTS runpod_jobs_with_events ON runpod_jobs (ends_life) WHERE webhook_open = 1;
CREATE TABLE IF NOT EXISTS models (
    owner TEXT NOT NULL, name TEXT NOT NULL, visibility TEXT NOT NULL, hardware TEXT NOT NULL,
    details TEXT NOT NULL DEFAULT '{}', created_shown REAL NOT NULL, burned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, name)
);
CREATE TABLE IF NOT EXISTS versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL, hash TEXT NOT NULL, created_shown REAL NOT NULL,
    gone_life REAL, training_id TEXT, UNIQUE (model, hash)
);
CREATE INDEX IF NOT EXISTS versions_of_model ON versions (model, seq);
CREATE INDEX IF NOT EXISTS versions_by_hash ON versions (hash);
CREATE INDEX IF NOT EXISTS versions_of_training ON versions (training_id) WHERE training_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, content_type TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL, md5 TEXT NOT NULL, metadata TEXT NOT NULL, created_shown REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, remaining INTEGER NOT NULL, details TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outgoing (
    id INTEGER PRIMARY KEY AUTOINCREMENT, webhook_id TEXT NOT NULL, training_id TEXT NOT NULL, event TEXT NOT NULL,
    url TEXT NOT NULL, body TEXT NOT NULL, next_at REAL NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
    age_s REAL NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS outgoing_due ON outgoing (next_at);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, webhook_id TEXT NOT NULL, training_id TEXT NOT NULL, event TEXT NOT NULL,
    attempt INTEGER NOT NULL, sent_at REAL NOT NULL, outcome TEXT NOT NULL
);
"""

TABLES = (
    "trainings",
    "runpod_jobs",
    "models",
    "versions",
    "files",
    "faults",
    "outgoing",
    "deliveries",
)


class State:
    """The open file and the folder beside it for uploaded files."""

    def __init__(self, folder: Path | None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="simulator-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or ".")
        self.files = self.folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.sql = sqlite3.connect(
            self.folder / "simulator.sqlite", isolation_level=None, check_same_thread=False
        )
        self.sql.row_factory = sqlite3.Row
        self.sql.execute("PRAGMA journal_mode = WAL")
        self.sql.execute("PRAGMA synchronous = NORMAL" if folder else "PRAGMA synchronous = OFF")
        self.sql.execute("PRAGMA busy_timeout = 5000")
        self.sql.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is committed together or not at all."""
        self.sql.execute("BEGIN IMMEDIATE")
        try:
            yield self.sql
        except BaseException:
            self.sql.execute("ROLLBACK")
            raise
        self.sql.execute("COMMIT")

    def clear(self) -> None:
        """Remove every row but the clock's and the remembered facts, and every uploaded file."""
        with self.transaction() as sql:
            for table in TABLES:
                sql.execute(f"DELETE FROM {table}")  # noqa: S608  names from above
        for path in self.files.iterdir():
            path.unlink()

    def fact(self, name: str, default: str) -> str:
        """A remembered value, set to the default at the first call: secrets and the clock's offset live here."""
        self.sql.execute("INSERT OR IGNORE INTO facts (name, value) VALUES (?, ?)", (name, default))
        row = self.sql.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row["value"])

    def remember(self, name: str, value: str) -> None:
        """Store a value under a name, replacing what was there."""
        self.sql.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Close the file and remove a temporary folder."""
        self.sql.close()
        if self._temporary:
            self._temporary.cleanup()
