"""Load trees of training_versions.json into the registry: read-only on the files, and twice without effect.

Entries that are one LoRA become one version, failed and forgotten ones become training runs. What is loaded is kept
word for word in a journal, from which the files can be written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion, UserModel
from lora_pipeline.erasure.names import Name, erased
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.image_sets.models import ModelDescription, ensure_model, erased_says, take_trigger_word
from lora_pipeline.inventory.entries import Addresses, address_of, has_id
from lora_pipeline.inventory.entry_defects import Defect, entry_defects, written_times
from lora_pipeline.inventory.import_journal import ImportJournal, kept_versions
from lora_pipeline.inventory.legacy_entries import ImportedEntry, named_number
from lora_pipeline.inventory.legacy_file import TOO_DEEP, LegacyFile, obstacles, parse_file
from lora_pipeline.inventory.legacy_models import LegacyModel, model_of
from lora_pipeline.inventory.legacy_runs import load_run
from lora_pipeline.inventory.legacy_tree import FileRefused, LegacyTree, Skipped
from lora_pipeline.inventory.legacy_versions import Loaded, ModelVersions, OtherModel, serve_newest
from lora_pipeline.inventory.reviews import keep_reviews
from lora_pipeline.inventory.tree_plan import AcrossFiles, FilePlan, Review, merged_entries, plan_file
from lora_pipeline.inventory.unstorable import unstorable

REVIEW_KIND = "legacy_entry"
_FOR_A_PERSON = frozenset({"conflict", "two_files", "other_model", "other_verdict"})


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

    @property
    def incomplete(self) -> bool:
        """Whether a file, or an entry that nothing could be known by, was not read."""
        return bool(self.skipped) or any(defect.kind == "no_id" for _, defect in self.defects)


class _NothingKept(Exception):
    """Ends the transaction of a dry run."""


def import_tree(
    database: Database, base: Path, rules: ObjectUrlRules, now: datetime, *, apply: bool
) -> ImportReport:
    """Load every file below `base`, a transaction a file. Without `apply` each is rolled back: a plan."""
    run = _Import(database, rules, now, ImportReport(applied=apply), ImportJournal(str(base), now))
    with database.read() as session:
        run.kept = kept_versions(session)
    with LegacyTree(base) as tree:
        for found in tree.find():
            if isinstance(found, Skipped):
                run.report.skipped.append(found)
                continue
            try:
                file, model = _read(tree, found)
                _refuse_erased(database, model)
                run.take(file, model)
            except FileRefused as refused:
                run.report.skipped.append(Skipped(found, str(refused)))
            except RecursionError:
                run.report.skipped.append(Skipped(found, TOO_DEEP))
    return run.end()


def _read(tree: LegacyTree, path: str) -> tuple[LegacyFile, LegacyModel]:
    """A file that can be loaded, and whose it is. FileRefused for any other."""
    file = parse_file(path, tree.read(path))
    problem = unstorable([str(tree.base), path, file.wrapper])
    if problem is not None:
        raise FileRefused(problem)
    model = model_of(path, str(tree.base))
    if model is None:
        raise FileRefused("no folder above it says whether it is of a style or an actor")
    return file, model


def _refuse_erased(database: Database, model: LegacyModel) -> None:
    """FileRefused where the model was erased: an old file must not bring anybody back."""
    with database.read() as session:
        gone = erased(session, model.key, [Name.MODEL])
    if gone is not None:
        raise FileRefused(erased_says(f"model {model.key!r}", gone))


@dataclass(slots=True)
class _Import:
    """One import, file by file."""

    database: Database
    rules: ObjectUrlRules
    now: datetime
    report: ImportReport
    journal: ImportJournal
    across: AcrossFiles = field(default_factory=AcrossFiles)
    kept: frozenset[int] = frozenset()
    """Versions of which an earlier import kept an entry."""
    paths: dict[str, str] = field(default_factory=dict)
    """Model key → the first file that was of it."""

    def take(self, file: LegacyFile, model: LegacyModel) -> None:
        """Load one file, and tell what is wrong with it."""
        report = self.report
        report.files += 1
        report.entries += len(file.entries)
        self._tell(file.path, entry_defects(file.entries, self.rules, self.now))
        first = self.paths.setdefault(model.key, file.path)
        if first != file.path:
            what = f"{first} is of {model.key} too; both are loaded into it"
            self._tell(file.path, [Defect(model.key, "shared_model", what)])
        entries = self._one_each(file)
        with suppress(_NothingKept), self.database.begin() as session:
            self._load(session, file, model, entries)
            if not report.applied:
                raise _NothingKept

    def end(self) -> ImportReport:
        """The report, with what shows only when all files were read; what a person decides is kept."""
        for review in self.across.reviews.values():
            what = f"the same LoRA is in {review.paths[0]} too, as {review.ids[0]}; loaded once, a person decides whose it is"
            self._tell(review.paths[1], [Defect(review.ids[1], "two_files", what)])
        if self.report.applied:
            doubtful = [(path, one) for path, one in self.report.defects if one.kind in _FOR_A_PERSON]
            reviews = ((f"{path} {one.where}: {one.kind}", {"what": one.what}) for path, one in doubtful)
            keep_reviews(self.database, REVIEW_KIND, reviews, self.now)
            self.report.plan_id = self.journal.plan_id if self.journal.sequence else None
        return self.report

    def _tell(self, path: str, defects: Iterable[Defect]) -> None:
        self.report.defects += [(path, defect) for defect in defects]

    def _one_each(self, file: LegacyFile) -> list[ImportedEntry]:
        """The file's entries, oldest first, those of one LoRA as one."""
        sound = [entry for entry in file.entries if has_id(entry)]
        self.report.left_out += len(file.entries) - len(sound)
        merged = sound
        if not obstacles(file):
            plan, reviews = plan_file(file, Addresses(self.rules), self.across)
            merged = merged_entries(file.entries, plan)
            self.report.duplicates += plan.removed
            self._tell(file.path, _duplicate_defects(plan, reviews))
        written = written_times(sound, self.rules)
        highest = max((number for one in merged if (number := named_number(one)) is not None), default=0)
        found = []
        for entry in reversed(merged):
            place = address_of(entry, self.rules).place
            written_at = place and written.get(place.ref)
            found.append(ImportedEntry(entry, file.path, self.rules, written_at, highest))
        return found

    def _load(
        self, session: Session, file: LegacyFile, legacy: LegacyModel, entries: list[ImportedEntry]
    ) -> None:
        known = session.scalars(select(UserModel.id).where(UserModel.model_key == legacy.key)).first()
        described = ModelDescription(model_name=legacy.name[:200], model_type=legacy.kind)
        model = ensure_model(session, legacy.key, described, self.now)
        session.refresh(model, with_for_update=True)
        self.report.models_new += known is None
        if known is None:
            _keep_trigger_word(session, model, entries)
        completed = [entry for entry in entries if entry.status == "completed"]
        versions = ModelVersions(session, model, completed, self.rules, self.now)
        untrained = select(ModelVersion.id).where(
            ModelVersion.model_id == model.id, ModelVersion.training_run_id.is_(None)
        )
        # Neither an import nor a training of ours tells about these: objects that somebody registered.
        unkept = set(session.scalars(untrained)) - self.kept
        loaded: list[tuple[ImportedEntry, str, int]] = []
        found: list[tuple[ImportedEntry, int]] = []
        for entry in entries:
            if entry.status != "completed":
                run = self._load_run(session, model, entry)
                loaded += [] if run is None else [(entry, "run", run)]
                continue
            version = self._load_version(versions, entry)
            if version is None:
                continue
            found.append((entry, version.id))
            if version.new or version.id in unkept:
                loaded.append((entry, "version", version.id))
        serve_newest(session, model, found, self.now)
        if loaded:
            self.journal.write(session, model.model_key, file, loaded)

    def _load_version(self, versions: ModelVersions, entry: ImportedEntry) -> Loaded | None:
        try:
            version = versions.load(entry)
        except OtherModel as other:
            self.report.left_out += 1
            self._tell(entry.path, [Defect(entry.id, "other_model", str(other))])
            return None
        self.report.versions_new += version.new
        self.report.versions_known += not version.new
        kept = versions.verdict_kept(version.id, entry)
        if kept is not None:
            what = f"isGood is {entry.is_good} here and {kept} in the registry, which keeps it"
            self._tell(entry.path, [Defect(entry.id, "other_verdict", what)])
        return version

    def _load_run(self, session: Session, model: UserModel, entry: ImportedEntry) -> int | None:
        """The id of the training run where it is new."""
        run = load_run(session, model, entry, self.now)
        if run is None:
            self.report.left_out += 1
            return None
        self.report.runs_new += run.new
        self.report.runs_known += not run.new
        return run.id if run.new else None


def _duplicate_defects(plan: FilePlan, reviews: Iterable[Review]) -> Iterator[Defect]:
    for group in plan.groups:
        what = f"the same LoRA as {group.survivor_id}; one version, and every id leads to it"
        merged = group.merged_ids or (group.survivor_id,)
        yield from (Defect(one, "duplicate", what) for one in merged)
    for review in reviews:
        what = f"{review.reason}: {', '.join(review.ids)}; a version each, a person decides"
        yield Defect(review.ids[0], "conflict", what)


def _keep_trigger_word(session: Session, model: UserModel, entries: list[ImportedEntry]) -> None:
    """The trigger word of the newest training."""
    words = (entry.trigger_word for entry in reversed(entries) if entry.status == "completed")
    word = next(filter(None, words), None)
    if word is not None:
        take_trigger_word(session, model, word)
