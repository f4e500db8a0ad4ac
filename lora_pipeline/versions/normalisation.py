"""Writing stored versions in their one canonical spelling: a plan first, then one statement for all of them.

What cannot be understood is listed and never touched. When a row was last changed stays as it is: the version that
it serves is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import AuditEntry, ModelVersion, UserModel
from lora_pipeline.identity import VersionRef
from lora_pipeline.identity.errors import shown
from lora_pipeline.versions.formats import read_stored
from lora_pipeline.versions.sync_targets import is_chosen, known_trainers

_READ = 1_000
_CHUNK = 1_000


@dataclass(frozen=True)
class Respelling:
    """One column of one row that is understood and spelled otherwise than it should be."""

    table: str
    row_id: int
    model_key: str
    column: str
    before: str
    after: str


@dataclass(frozen=True)
class Malformed:
    """A stored text that is no version (or no model) of this row's."""

    model_key: str
    column: str
    problem: str


@dataclass(frozen=True)
class Normalisation:
    """What is to be spelled anew, and what a person must look at."""

    applied: bool
    checked: int
    respellings: tuple[Respelling, ...] = ()
    malformed: tuple[Malformed, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a log."""
        done = "spelled anew" if self.applied else "to be spelled anew"
        return f"{self.checked} checked, {len(self.respellings)} {done}, {len(self.malformed)} malformed"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; a malformed text is shown without what could be secret in it."""
        return {
            "applied": self.applied,
            "checked": self.checked,
            "respelled": [
                {"model": one.model_key, "column": one.column, "before": one.before, "after": one.after}
                for one in self.respellings
            ],
            "malformed": [
                {"model": one.model_key, "column": one.column, "problem": one.problem}
                for one in self.malformed
            ],
        }


@dataclass
class _Found:
    only: str
    checked: int = 0
    respellings: list[Respelling] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    def takes(self, model_key: str, user_id: str) -> bool:
        """Whether this row is asked about; counts it."""
        taken = is_chosen(self.only, model_key, user_id)
        self.checked += taken
        return taken


def normalise_versions(
    connections: Connections, *, apply: bool = False, only: str = "*", actor: str = "sync"
) -> Normalisation:
    """Plan, or carry out, the canonical spelling of every stored version and model id. Idempotent.

    `only` is a pattern (`user-*`) over model keys and user ids. Each row is changed only if it still holds what was read; each change stands in the audit log.
    """
    database = connections.database
    with database.read() as session:
        trainers = known_trainers(session, connections.settings.trainer)
        found = _Found(only)
        _read_models(session, trainers, found)
        _read_registry(session, found)
    if apply and found.respellings:
        with database.begin() as session:
            _write(session, found.respellings)
            session.execute(
                insert(AuditEntry), [_entry(one, actor, connections) for one in found.respellings]
            )
    return Normalisation(apply, found.checked, tuple(found.respellings), tuple(found.malformed))


def _read_models(session: Session, trainers: tuple[VersionRef, ...], found: _Found) -> None:
    columns = (
        UserModel.id,
        UserModel.model_key,
        UserModel.user_id,
        UserModel.replicate_model_id,
        UserModel.replicate_version_id,
    )
    stored_something = UserModel.replicate_version_id.is_not(None) | UserModel.replicate_model_id.is_not(None)
    question = select(*columns).where(stored_something).order_by(UserModel.id)
    for row_id, key, user_id, model_text, version_text in session.execute(question).yield_per(_READ):
        if not found.takes(key, user_id):
            continue
        stored = read_stored(model_text, version_text, trainers)
        pairs = (
            ("replicate_model_id", model_text, stored.canonical_model),
            ("replicate_version_id", version_text, stored.canonical_version),
        )
        for column, before, after in pairs:
            if before and after and before != after:
                found.respellings.append(Respelling("user_models", row_id, key, column, before, after))
        if stored.model_problem:
            found.malformed.append(Malformed(key, "replicate_model_id", stored.model_problem))
        problem = stored.version_problem
        if stored.is_trainer:
            problem = f"{shown(version_text)} is a trainer's version, not a trained one"
        if problem:
            found.malformed.append(Malformed(key, "replicate_version_id", problem))


def _read_registry(session: Session, found: _Found) -> None:
    """The registry's own column; a spelling whose canonical form is registered already is left to deduplication."""
    columns = (
        ModelVersion.id,
        UserModel.model_key,
        UserModel.user_id,
        UserModel.replicate_model_id,
        ModelVersion.provider_version,
    )
    question = (
        select(*columns)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .where(ModelVersion.provider_version.is_not(None), ModelVersion.provider == "replicate")
    )
    odd: list[tuple[int, str, str, str]] = []
    for row_id, key, user_id, model_text, text in session.execute(question).yield_per(_READ):
        if not found.takes(key, user_id):
            continue
        stored = read_stored(model_text, text)
        if stored.version is None:
            problem = stored.version_problem or "empty"
            found.malformed.append(Malformed(key, "provider_version", problem))
        elif text != (after := stored.canonical_version or str(stored.version)):
            odd.append((row_id, key, str(text), after))
    taken: set[str] = set()
    for start in range(0, len(odd), _CHUNK):
        wanted = [after for _, _, _, after in odd[start : start + _CHUNK]]
        known = select(ModelVersion.provider_version).where(ModelVersion.provider_version.in_(wanted))
        taken.update(text for text in session.scalars(known) if text)
    for row_id, key, before, after in odd:
        if after in taken:
            problem = f"{shown(before)} is registered a second time as {after}: see lora-pipeline dedupe"
            found.malformed.append(Malformed(key, "provider_version", problem))
        else:
            taken.add(after)
            found.respellings.append(
                Respelling("model_versions", row_id, key, "provider_version", before, after)
            )


def _write(session: Session, respellings: list[Respelling]) -> None:
    """One prepared statement a column, guarded by what was read, executed for all rows at once."""
    for column in (
        UserModel.replicate_model_id,
        UserModel.replicate_version_id,
        ModelVersion.provider_version,
    ):
        rows = [
            {"row_id": one.row_id, "text_before": one.before, "text_after": one.after}
            for one in respellings
            if (one.table, one.column) == (column.class_.__tablename__, column.key)
        ]
        if rows:
            table = column.class_.__table__
            statement = (
                update(table)
                .where(table.c.id == bindparam("row_id"), table.c[column.key] == bindparam("text_before"))
                .values({column.key: bindparam("text_after")})
            )
            session.connection().execute(statement, rows)


def _entry(one: Respelling, actor: str, connections: Connections) -> dict[str, Any]:
    details = {"table": one.table, "column": one.column, "before": one.before, "after": one.after}
    return {
        "at": connections.now(),
        "actor": actor,
        "action": "normalise version",
        "subject": one.model_key,
        "details": details,
    }
