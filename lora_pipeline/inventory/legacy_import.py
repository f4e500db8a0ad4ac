"""Load trees of training_versions.json into the registry: read-only on the files, and twice without effect.

Entries that are one LoRA become one version, failed and forgotten ones become training runs. What is loaded is kept
word for word in a journal, from which the files can be written again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import MergeJournal, MergePlan, UserModel
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.entries import Addresses, address_of
from lora_pipeline.inventory.entry_defects import Defect, entry_defects, written_times
from lora_pipeline.inventory.legacy_file import VERSIONS, LegacyFile, parse_file, unidentified
from lora_pipeline.inventory.legacy_models import LegacyModel, model_of
from lora_pipeline.inventory.legacy_rows import (
    ImportedEntry,
    load_run,
    load_version,
    named_number,
    serve_newest,
)
from lora_pipeline.inventory.legacy_tree import FileRefused, LegacyTree, Skipped
from lora_pipeline.inventory.tree_plan import AcrossFiles, plan_file, render

SCOPE = "import training-versions"


@dataclass(slots=True)
class ImportReport:
    """What was found, and what loading it did (or would do)."""

    applied: bool
    files: int = 0
    entries: int = 0
    duplicates: int = 0
    models_new: int = 0
    versions_new: int = 0
    versions_known: int = 0
    runs_new: int = 0
    runs_known: int = 0
    left_out: int = 0
    """Entries that are not loaded; the defects say why."""
    plan_id: str | None = None
    defects: list[tuple[str, Defect]] = field(default_factory=list)
    """(file, defect) pairs."""
    skipped: list[Skipped] = field(default_factory=list)


class _NothingKept(Exception):
    """Ends the transaction of a dry run."""


def import_tree(
    database: Database, base: Path, rules: ObjectUrlRules, now: datetime, *, apply: bool
) -> ImportReport:
    """Load every file below `base`, a transaction a file. Without `apply` each is rolled back: a plan."""
    report = ImportReport(applied=apply)
    journal = _Journal(str(base), now)
    with LegacyTree(base) as tree:
        for found in tree.find():
            if isinstance(found, Skipped):
                report.skipped.append(found)
                continue
            try:
                file = parse_file(found, tree.read(found))
                model = model_of(found, str(tree.base))
                if model is None:
                    raise FileRefused("no folder above it says whether it is of a style or an actor")
            except FileRefused as refused:
                report.skipped.append(Skipped(found, str(refused)))
                continue
            _import_file(database, file, model, rules, now, report, journal)
    report.plan_id = journal.plan_id if apply and journal.sequence else None
    return report


def _import_file(
    database: Database,
    file: LegacyFile,
    model: LegacyModel,
    rules: ObjectUrlRules,
    now: datetime,
    report: ImportReport,
    journal: _Journal,
) -> None:
    report.files += 1
    report.entries += len(file.entries)
    report.defects += [(file.path, defect) for defect in entry_defects(file.entries, rules, now)]
    entries = list(_one_each(file, rules))
    report.duplicates += len([entry for entry in file.entries if _has_id(entry)]) - len(entries)
    try:
        with database.begin() as session:
            _load(session, file, model, entries, rules, now, report, journal)
            if not report.applied:
                raise _NothingKept
    except _NothingKept:
        pass


def _one_each(file: LegacyFile, rules: ObjectUrlRules) -> Iterator[ImportedEntry]:
    """The file's entries, oldest first, those of one LoRA as one."""
    sound = [entry for entry in file.entries if _has_id(entry)]
    merged = sound
    if not unidentified(file):
        plan, _ = plan_file(file, Addresses(rules), AcrossFiles())
        merged = parse_file(file.path, render(file, plan).encode()).entries if plan.groups else sound
    written = written_times(sound, rules)
    highest = max((number for entry in merged if (number := named_number(entry)) is not None), default=0)
    for entry in reversed(merged):
        place = address_of(entry, rules).place
        yield ImportedEntry(entry, file.path, place and written.get(place.ref), highest)


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and bool(entry["id"].strip())


def _load(
    session: Session,
    file: LegacyFile,
    legacy: LegacyModel,
    entries: list[ImportedEntry],
    rules: ObjectUrlRules,
    now: datetime,
    report: ImportReport,
    journal: _Journal,
) -> None:
    known = session.scalars(select(UserModel.id).where(UserModel.model_key == legacy.key)).first()
    described = ModelDescription(model_name=legacy.name[:200], model_type=legacy.kind)
    model = ensure_model(session, legacy.key, described, now)
    session.refresh(model, with_for_update=True)
    report.models_new += known is None
    if known is None:
        _keep_trigger_word(session, model, entries)
    loaded: list[tuple[ImportedEntry, str, int]] = []
    for entry in entries:
        outcome = _load_entry(session, model, entry, rules, now, report)
        if outcome is not None:
            loaded.append((entry, *outcome))
    serve_newest(session, model, [(entry, row) for entry, kind, row in loaded if kind == "version"], now)
    if loaded:
        journal.write(session, model.model_key, file, loaded)


def _load_entry(
    session: Session,
    model: UserModel,
    entry: ImportedEntry,
    rules: ObjectUrlRules,
    now: datetime,
    report: ImportReport,
) -> tuple[str, int] | None:
    """(`version` or `run`, its id) where the entry made a new row."""
    if entry.status == "completed":
        version = load_version(session, model, entry, rules, now)
        if isinstance(version, str):
            report.left_out += 1
            report.defects.append((entry.path, Defect(entry.id, "other_model", version)))
            return None
        report.versions_new += version.new
        report.versions_known += not version.new
        return ("version", version.id) if version.new else None
    run = load_run(session, model, entry, now)
    if run is None:
        report.left_out += 1
        return None
    report.runs_new += run.new
    report.runs_known += not run.new
    return ("run", run.id) if run.new else None


def _keep_trigger_word(session: Session, model: UserModel, entries: list[ImportedEntry]) -> None:
    """The trigger word of the newest training, where no other model has it: prompts are written with it."""
    for entry in reversed(entries):
        word = entry.trigger_word
        if entry.status == "completed" and word is not None:
            taken = session.scalars(
                select(UserModel.id).where(UserModel.trigger_word == word, UserModel.id != model.id)
            ).first()
            if taken is None:
                model.trigger_word = word
                session.flush()
            return


class _Journal:
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
                    scope=f"{SCOPE} {self.base}",
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
