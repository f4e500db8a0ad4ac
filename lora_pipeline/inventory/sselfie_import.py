"""Load the selfie product's tables: users, models, versions and trainings that can be trusted, twice without effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, ModelVersion, UserModel
from lora_pipeline.erasure.names import Name, erased
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.models import erased_says
from lora_pipeline.inventory.entry_defects import Defect
from lora_pipeline.inventory.reviews import keep_reviews
from lora_pipeline.inventory.sselfie_models import LONGEST_ID, UserRows, add_user, ensure_users_model
from lora_pipeline.inventory.sselfie_runs import load_runs
from lora_pipeline.inventory.sselfie_tables import Row, SelfieTables
from lora_pipeline.inventory.sselfie_verdicts import JudgedModel, at, fold_defects, judge_model, served
from lora_pipeline.inventory.sselfie_versions import OtherOwner, load_version, load_weights
from lora_pipeline.inventory.unstorable import REFUSED_VALUES
from lora_pipeline.versions.activation import activate, open_activation

REVIEW_KIND = "legacy_row"
# What a person has to look at, against what is repaired on the way.
UNTRUSTED = frozenset(
    {
        "training_id_as_model",
        "trainer_version",
        "malformed_version",
        "malformed_model",
        "version_without_model",
        "invented_weights",
        "no_version",
        "blanked_by_retrain",
        "orphan",
        "other_model",
        "stuck_pending",
    }
)


_COUNTED = (
    "users_new",
    "models_new",
    "versions_new",
    "versions_known",
    "runs_new",
    "runs_known",
    "left_out",
    "waiting",
)


@dataclass(slots=True)
class SelfieReport:
    """What was found, and what loading it did (or would do)."""

    applied: bool
    generation: str
    rows: dict[str, int] = field(default_factory=dict)
    users_new: int = 0
    models_new: int = 0
    versions_new: int = 0
    versions_known: int = 0
    runs_new: int = 0
    runs_known: int = 0
    left_out: int = 0
    """Rows that could not be loaded at all; the defects say why."""
    waiting: int = 0
    """Trainings that may still run: they are loaded once they have ended."""
    defects: list[Defect] = field(default_factory=list)

    def add(self, part: SelfieReport) -> None:
        """Count what was done for one user."""
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.defects += part.defects

    @property
    def untrusted(self) -> list[Defect]:
        return [defect for defect in self.defects if defect.kind in UNTRUSTED]


class _NothingKept(Exception):
    """Ends the transaction of a dry run."""


def import_selfie(database: Database, old: SelfieTables, now: datetime, *, apply: bool) -> SelfieReport:
    """Load what can be trusted, a transaction a user. Without `apply` each is rolled back: a plan."""
    run = _Import(database, now, SelfieReport(apply, old.generation, _counts(old)))
    known = {str(row["id"]): row for row in old.users}
    models, runs, weights = (
        _by_user(rows) for rows in (old.user_models, old.training_runs, old.lora_weights)
    )
    for user_id in dict.fromkeys([*known, *models, *runs, *weights]):
        rows = UserRows(user_id, known.get(user_id), models[user_id], runs[user_id], weights[user_id])
        if rows.user is None and (old.users or not user_id):
            run.leave_out(rows, f"user {user_id or 'NULL'} is not in users; not loaded")
        else:
            run.take(rows)
    return run.end()


def _counts(old: SelfieTables) -> dict[str, int]:
    return {
        "users": len(old.users),
        "user_models": len(old.user_models),
        "training_runs": len(old.training_runs),
        "lora_weights": len(old.lora_weights),
        "selfie_uploads (not loaded)": old.selfie_uploads,
    }


def _by_user(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        user_id = row.get("user_id")
        found["" if user_id is None else str(user_id)].append(row)
    return found


@dataclass(slots=True)
class _Import:
    """One import, user by user."""

    database: Database
    now: datetime
    report: SelfieReport

    def leave_out(self, rows: UserRows, what: str) -> None:
        """Tell of rows that are not loaded."""
        for name, found in (
            ("user_models", rows.models),
            ("training_runs", rows.runs),
            ("lora_weights", rows.weights),
        ):
            self.report.defects += [Defect(f"{name} {row.get('id')}", "orphan", what) for row in found]
            self.report.left_out += len(found)

    def take(self, rows: UserRows) -> None:
        """Load what one user has, and tell what is wrong with it."""
        if len(rows.user_id) > LONGEST_ID:
            self.leave_out(rows, f"a user's id of {len(rows.user_id)} characters; not loaded")
            return
        with self.database.read() as session:
            gone = erased(session, rows.user_id, [Name.USER])
        if gone is not None:
            # Not left out: that nobody comes back is what was asked for.
            self.report.defects.append(
                Defect(f"users {rows.user_id}", "erased", erased_says("the user", gone))
            )
            return
        part = SelfieReport(self.report.applied, self.report.generation)
        try:
            with suppress(_NothingKept), self.database.begin() as session:
                self._load(session, rows, part)
                if not part.applied:
                    raise _NothingKept
        except (IntakeError, ValidationError, *REFUSED_VALUES) as error:
            self.leave_out(rows, f"not loaded: {_cause(error)}")
        else:
            self.report.add(part)

    def end(self) -> SelfieReport:
        """The report; what a person has to look at is kept."""
        if self.report.applied:
            reviews = ((f"{one.where}: {one.kind}", {"what": one.what}) for one in self.report.untrusted)
            keep_reviews(self.database, REVIEW_KIND, reviews, self.now)
        return self.report

    def _load(self, session: Session, rows: UserRows, report: SelfieReport) -> None:
        judged = sorted(
            (judge_model(row, _evidence(row, rows), self.now) for row in rows.models),
            key=lambda one: (one.created_at, one.row_id),
        )
        report.defects += [defect for one in judged for defect in one.defects]
        report.defects += fold_defects(judged)
        new_user = add_user(session, rows, self.now)
        report.users_new += new_user
        if not judged:
            if rows.runs or rows.weights:
                self.leave_out(rows, "its user has no row in user_models; not loaded")
            return
        chosen = served(judged) or judged[-1]
        model, new = ensure_users_model(session, rows, chosen, self.now)
        report.models_new += new
        versions = self._load_versions(session, model, judged, rows, report)
        version = versions.get(chosen.row_id)
        if version is not None and open_activation(session, model.id) is None:
            reason = "served by the old application"
            activate(session, model, version, actor="import", reason=reason, now=self.now, tell=False)
        if new:
            details = {
                "rows": [one.row_id for one in judged],
                "defects": sorted({defect.kind for one in judged for defect in one.defects}),
            }
            session.add(
                AuditEntry(
                    at=self.now, actor="import", action="import", subject=model.model_key, details=details
                )
            )

    def _load_versions(
        self,
        session: Session,
        model: UserModel,
        judged: Sequence[JudgedModel],
        rows: UserRows,
        report: SelfieReport,
    ) -> dict[str, ModelVersion]:
        """Row id → its version, where it has one that can be trusted; trainings first, weights last."""
        runs = load_runs(session, model, rows.runs, self.now)
        report.runs_new += runs.new
        report.runs_known += runs.known
        report.waiting += runs.waiting
        report.defects += runs.defects
        found = {}
        for one in judged:
            try:
                loaded = load_version(session, model, one, rows.runs, runs.by_job, self.now)
            except OtherOwner as other:
                report.versions_known += 1
                report.defects.append(Defect(f"user_models {one.row_id}", "other_model", str(other)))
                continue
            if loaded is not None:
                found[one.row_id], new = loaded
                report.versions_new += new
                report.versions_known += not new
        own, own_known, defects = load_weights(session, model, rows.weights, rows.runs, self.now)
        report.versions_new += own
        report.versions_known += own_known
        report.defects += defects
        return found


def _cause(error: Exception) -> str:
    """Without the statement and its values, which are somebody's."""
    driver = getattr(error, "orig", None)
    return str(error) if driver is None else str(driver).strip().splitlines()[0]


def _evidence(row: Row, rows: UserRows) -> list[datetime | None]:
    """When other tables say that this row's training ended."""
    job = row.get("training_id")
    return [at(run.get("completed_at")) for run in rows.runs if job and run.get("training_id") == job]
