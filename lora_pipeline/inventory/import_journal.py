"""What imports loaded, word for word: enough to write the old files again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import MergeJournal, MergePlan
from lora_pipeline.inventory.legacy_entries import ImportedEntry
from lora_pipeline.inventory.legacy_file import VERSIONS, LegacyFile

_SCOPE = "import training-versions"


class ImportJournal:
    """What was loaded, word for word: one plan an import, one line an entry, made only when there is a line."""

    def __init__(self, base: str, now: datetime) -> None:
        self.plan_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        self.base, self.now = base, now
        self.sequence = 0

    def write(
        self, session: Session, model_key: str, file: LegacyFile, loaded: list[tuple[ImportedEntry, str, int]]
    ) -> None:
        if session.get(MergePlan, self.plan_id) is None:
            session.add(
                MergePlan(
                    id=self.plan_id,
                    scope=f"{_SCOPE} {self.base}",
                    state="applied",
                    groups=[],
                    fingerprint="",
                    created_at=self.now,
                    applied_at=self.now,
                )
            )
            session.flush()
        wrapper = {key: value for key, value in file.wrapper.items() if key != VERSIONS}
        self._line(session, f"{model_key}/", {"wrapper": wrapper}, {"path": file.path})
        for entry, kind, row in loaded:
            self._line(session, f"{model_key}/{entry.id}", dict(entry.unsigned), {kind: row})
        session.flush()

    def _line(self, session: Session, target: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.sequence += 1
        session.add(
            MergeJournal(
                plan_id=self.plan_id,
                sequence=self.sequence,
                target=target,
                before=before,
                after=after,
                done_at=self.now,
            )
        )


@dataclass(slots=True)
class KeptEntries:
    """What imports kept of one model."""

    path: str | None = None
    wrapper: dict[str, Any] = field(default_factory=dict)
    versions: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)


def kept_versions(session: Session) -> frozenset[int]:
    """The versions of which imports kept an entry."""
    lines = (
        select(MergeJournal.after)
        .join(MergePlan, MergePlan.id == MergeJournal.plan_id)
        .where(MergePlan.scope.startswith(_SCOPE))
    )
    return frozenset(after["version"] for after in session.scalars(lines) if "version" in after)


def read_kept(session: Session) -> dict[str, KeptEntries]:
    """What imports kept, by model key; of runs that were loaded again, the latest."""
    found: dict[str, KeptEntries] = {}
    for line in session.scalars(
        select(MergeJournal)
        .join(MergePlan, MergePlan.id == MergeJournal.plan_id)
        .where(MergePlan.scope.startswith(_SCOPE))
        .order_by(MergeJournal.id)
    ):
        key, _, entry_id = line.target.partition("/")
        kept = found.setdefault(key, KeptEntries())
        if not entry_id:
            kept.path, kept.wrapper = line.after["path"], line.before["wrapper"]
        elif "version" in line.after:
            kept.versions.setdefault(line.after["version"], []).append(line.before)
        else:
            kept.runs[line.after["run"]] = line.before
    return found
