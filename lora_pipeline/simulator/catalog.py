"""Models and their versions: the account's own, and the trainers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lora_pipeline.simulator.clock import SimulatedClock
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainers import TRAINER_VERSIONS

PAGE_LENGTH = 25
"""Versions on a page. Inferred: the length of a page of versions is not documented."""

EPOCH_OF_TRAINERS = 1_723_600_000.0
"""Shown creation time of the trainers: August 2024."""


@dataclass(frozen=True)
class Model:
    """A model that exists."""

    owner: str
    name: str
    visibility: str
    details: dict[str, Any]

    @property
    def full_name(self) -> str:
        """`owner/name`."""
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Version:
    """A version of a model."""

    seq: int
    model: str
    hash: str
    created_shown: float
    training_id: str | None


class NameTaken(Exception):
    """A model of this name exists, or existed and its name is burned."""


class Catalog:
    """Finds, makes and removes models and versions."""

    def __init__(self, state: State, clock: SimulatedClock) -> None:
        self._sql = state.sql
        self._state = state
        self._clock = clock
        self.add_trainers()

    def add_trainers(self) -> None:
        """Put the trainers and their versions where they are missing."""
        with self._state.transaction() as sql:
            for trainer, hashes in TRAINER_VERSIONS.items():
                owner, name = trainer.split("/")
                sql.execute(
                    "INSERT OR IGNORE INTO models (owner, name, visibility, hardware, created_shown) "
                    "VALUES (?, ?, 'public', 'gpu-h100', ?)",
                    (owner, name, EPOCH_OF_TRAINERS),
                )
                sql.executemany(
                    "INSERT OR IGNORE INTO versions (model, hash, created_shown) VALUES (?, ?, ?)",
                    [(trainer, text, EPOCH_OF_TRAINERS + i) for i, text in enumerate(hashes)],
                )

    def find(self, owner: str, name: str) -> Model | None:
        """A model that exists and is not burned."""
        row = self._sql.execute(
            "SELECT * FROM models WHERE owner = ? AND name = ? AND burned = 0", (owner, name)
        ).fetchone()
        return (
            Model(row["owner"], row["name"], row["visibility"], json.loads(row["details"])) if row else None
        )

    def create(self, owner: str, name: str, visibility: str, hardware: str, details: dict[str, Any]) -> Model:
        """A new, empty model; raises NameTaken."""
        try:
            self._sql.execute(
                "INSERT INTO models (owner, name, visibility, hardware, details, created_shown) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (owner, name, visibility, hardware, json.dumps(details), self._clock.now().shown),
            )
        except sqlite3.IntegrityError:
            raise NameTaken(f"{owner}/{name}") from None
        return Model(owner, name, visibility, details)

    def ensure(self, full_names: Iterable[str]) -> None:
        """Make private models of these names where they are missing, in one go."""
        shown = self._clock.now().shown
        with self._state.transaction() as sql:
            sql.executemany(
                "INSERT OR IGNORE INTO models (owner, name, visibility, hardware, created_shown) "
                "VALUES (?, ?, 'private', 'gpu-h100', ?)",
                [(*full.split("/", 1), shown) for full in full_names],
            )

    def add_versions(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Push versions (model, hash) that come from no training, oldest first."""
        shown = self._clock.now().shown
        with self._state.transaction() as sql:
            sql.executemany(
                "INSERT OR IGNORE INTO versions (model, hash, created_shown) VALUES (?, ?, ?)",
                [(model, text, shown + i * 1e-6) for i, (model, text) in enumerate(pairs)],
            )

    def delete(self, model: Model, *, burn: bool) -> None:
        """Remove an empty model; a burned name stays taken for ever."""
        where = "WHERE owner = ? AND name = ?"
        statement = f"UPDATE models SET burned = 1 {where}" if burn else f"DELETE FROM models {where}"  # noqa: S608
        self._sql.execute(statement, (model.owner, model.name))

    def burn(self, full_name: str) -> None:
        """Take a name: creation answers 409, GET 404."""
        owner, name = full_name.split("/", 1)
        self._sql.execute(
            "INSERT OR REPLACE INTO models (owner, name, visibility, hardware, created_shown, burned) "
            "VALUES (?, ?, 'private', 'cpu', ?, 1)",
            (owner, name, self._clock.now().shown),
        )

    def versions(self, model: str, before: int | None = None, limit: int = PAGE_LENGTH + 1) -> list[Version]:
        """Versions of a model, newest first, those whose deletion is carried out left out."""
        rows = self._sql.execute(
            "SELECT * FROM versions WHERE model = ? AND seq < ? AND (gone_life IS NULL OR gone_life > ?) "
            "ORDER BY seq DESC LIMIT ?",
            (model, before or 2**62, self._clock.now().life, limit),
        ).fetchall()
        return [_version(row) for row in rows]

    def version(self, model: str, text: str) -> Version | None:
        """One version by its hash."""
        row = self._sql.execute(
            "SELECT * FROM versions WHERE model = ? AND hash = ? AND (gone_life IS NULL OR gone_life > ?)",
            (model, text, self._clock.now().life),
        ).fetchone()
        return _version(row) if row else None

    def model_of(self, text: str) -> str | None:
        """The model that a version's hash belongs to."""
        row = self._sql.execute(
            "SELECT model FROM versions WHERE hash = ? AND (gone_life IS NULL OR gone_life > ?)",
            (text, self._clock.now().life),
        ).fetchone()
        return str(row["model"]) if row else None

    def version_is_gone(self, training_id: str) -> bool:
        """Whether the version that a training made has been deleted, and its files with it."""
        row = self._sql.execute(
            "SELECT gone_life FROM versions WHERE training_id = ?", (training_id,)
        ).fetchone()
        return bool(row and row["gone_life"] is not None and row["gone_life"] <= self._clock.now().life)

    def delete_version(self, version: Version, after_s: float) -> None:
        """Accept a deletion; it is carried out after this many life seconds."""
        self._sql.execute(
            "UPDATE versions SET gone_life = ? WHERE seq = ? AND gone_life IS NULL",
            (self._clock.now().life + after_s, version.seq),
        )


def _version(row: sqlite3.Row) -> Version:
    return Version(row["seq"], row["model"], row["hash"], float(row["created_shown"]), row["training_id"])
