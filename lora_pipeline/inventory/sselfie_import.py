"""Load the selfie product's tables: users, models, versions and trainings that can be trusted, twice without effect."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    AuditEntry,
    ModelVersion,
    ReviewItem,
    TrainingRun,
    User,
    UserModel,
    VersionAlias,
)
from lora_pipeline.identity import IdentityError, parse_model_key
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.entry_defects import STUCK_AFTER, Defect
from lora_pipeline.inventory.sselfie_tables import Row, SelfieTables
from lora_pipeline.inventory.sselfie_verdicts import JudgedModel, at, fold_defects, judge_model, served
from lora_pipeline.versions.activation import activate, open_activation

PROVIDER = "replicate"
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
_ENDS = {"completed": "finalised", "succeeded": "finalised", "failed": "failed", "canceled": "canceled"}
_SHOWN = {"finalised": "completed", "failed": "failed", "canceled": "canceled", "aborted": "failed"}


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

    @property
    def untrusted(self) -> list[Defect]:
        return [defect for defect in self.defects if defect.kind in UNTRUSTED]


class _NothingKept(Exception):
    """Ends the transaction of a dry run."""


def import_selfie(database: Database, old: SelfieTables, now: datetime, *, apply: bool) -> SelfieReport:
    """Load what can be trusted, a transaction a user. Without `apply` each is rolled back: a plan."""
    report = SelfieReport(apply, old.generation, _counts(old))
    models, runs, weights = (
        _by_user(rows) for rows in (old.user_models, old.training_runs, old.lora_weights)
    )
    known = {str(row["id"]): row for row in old.users}
    for user_id in dict.fromkeys([*known, *models, *runs, *weights]):
        rows = _Rows(user_id, known.get(user_id), models[user_id], runs[user_id], weights[user_id])
        if rows.user is None and old.users:
            what = f"user {user_id} is not in users; not loaded"
            report.defects += [Defect(f"user_models {row.get('id')}", "orphan", what) for row in rows.models]
            report.left_out += len(rows.models)
            continue
        try:
            with database.begin() as session:
                _load_user(session, rows, now, report)
                if not apply:
                    raise _NothingKept
        except _NothingKept:
            pass
        except (IntakeError, ValidationError) as error:
            report.left_out += len(rows.models)
            report.defects.append(Defect(f"user {user_id}", "orphan", f"not loaded: {error}"))
    if apply:
        _keep_reviews(database, report, now)
    return report


@dataclass(frozen=True, slots=True)
class _Rows:
    user_id: str
    user: Row | None
    models: Sequence[Row]
    runs: Sequence[Row]
    weights: Sequence[Row]


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
        found[str(row.get("user_id"))].append(row)
    return found


def _load_user(session: Session, rows: _Rows, now: datetime, report: SelfieReport) -> None:
    judged = sorted(
        (judge_model(row, _evidence(row, rows), now) for row in rows.models),
        key=lambda one: (one.created_at, one.row_id),
    )
    report.defects += [defect for one in judged for defect in one.defects]
    report.defects += fold_defects(judged)
    if not judged:
        _add_user(session, rows, now, report)
        return
    chosen = served(judged) or judged[-1]
    model, new = _model(session, rows, chosen, now, report)
    run_ids = _load_runs(session, model, rows.runs, now, report)
    versions = {one.row_id: _load_version(session, model, one, rows, run_ids, now, report) for one in judged}
    _load_weights(session, model, rows, now, report)
    version = versions.get(chosen.row_id)
    if version is not None and open_activation(session, model.id) is None:
        activate(session, model, version, actor="import", reason="served by the old application", now=now)
    if new:
        details = {
            "rows": [one.row_id for one in judged],
            "defects": sorted({d.kind for one in judged for d in one.defects}),
        }
        session.add(
            AuditEntry(at=now, actor="import", action="import", subject=model.model_key, details=details)
        )


def _evidence(row: Row, rows: _Rows) -> list[datetime | None]:
    """When other tables say that this row's training ended."""
    job = row.get("training_id")
    return [at(run.get("completed_at")) for run in rows.runs if job and run.get("training_id") == job]


def _add_user(session: Session, rows: _Rows, now: datetime, report: SelfieReport) -> None:
    if session.get(User, rows.user_id[:64]) is None and rows.user is not None:
        session.add(User(id=rows.user_id[:64], email=_email(rows.user), created_at=now, updated_at=now))
        report.users_new += 1


def _email(row: Row | None) -> str | None:
    email = (row or {}).get("email")
    return str(email)[:320] if email else None


def _model(
    session: Session, rows: _Rows, chosen: JudgedModel, now: datetime, report: SelfieReport
) -> tuple[UserModel, bool]:
    key = _model_key(rows.user_id)
    known = session.scalars(select(UserModel).where(UserModel.model_key == key)).first()
    if known is not None:
        session.refresh(known, with_for_update=True)
        return known, False
    report.users_new += session.get(User, rows.user_id) is None
    described = ModelDescription(
        user_id=rows.user_id,
        email=_email(rows.user),
        model_name=(chosen.name or key)[:200],
        gender=chosen.gender[:16] if chosen.gender else None,
        is_test=chosen.is_test,
    )
    model = ensure_model(session, key, described, now)
    session.refresh(model, with_for_update=True)
    word = chosen.trigger_word
    if word is not None and len(word) <= 64 and not _taken(session, word, model.id):
        model.trigger_word = word
    if chosen.version is not None and chosen.version.model is not None:
        model.replicate_model_id = str(chosen.version.model)
    model.training_id = chosen.training_id
    model.training_status = chosen.status if chosen.status in ("failed", "canceled") else "pending"
    report.models_new += 1
    return model, True


def _model_key(user_id: str) -> str:
    """`user-<id>`; a digest where the id is an e-mail address or has other characters."""
    plain = user_id.lower().removeprefix("user-")
    try:
        return parse_model_key(f"user-{plain}")
    except IdentityError:
        return f"user-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}"


def _taken(session: Session, word: str, model_id: int) -> bool:
    query = select(UserModel.id).where(UserModel.trigger_word == word, UserModel.id != model_id)
    return session.scalars(query).first() is not None


def _load_version(
    session: Session,
    model: UserModel,
    judged: JudgedModel,
    rows: _Rows,
    run_ids: dict[str, int],
    now: datetime,
    report: SelfieReport,
) -> ModelVersion | None:
    if judged.version is None:
        return None
    qualified = judged.version.qualified
    known = session.scalars(
        select(ModelVersion).where(ModelVersion.provider_version == qualified)
    ).one_or_none()
    if known is not None:
        report.versions_known += 1
        if known.model_id != model.id:
            owner = session.get_one(UserModel, known.model_id).model_key
            what = f"its version is V{known.number} of {owner} already; a person decides whose it is"
            report.defects.append(Defect(f"user_models {judged.row_id}", "other_model", what))
            return None
        return known
    run = next(
        (row for row in rows.runs if judged.training_id and row.get("training_id") == judged.training_id), {}
    )
    run_id = run_ids.get(judged.training_id or "")
    version = _add_version(
        session,
        model,
        now,
        provider_version=qualified,
        training_run_id=None if _has_version(session, run_id) else run_id,
        weights_url=judged.weights_url,
        trigger_word=judged.trigger_word or model.trigger_word,
        lora_scale=judged.lora_scale,
        parameters=_json(run.get("parameters")),
        provenance=dict.fromkeys(
            ("provider_version", "weights", "parameters", "trained_at"), f"user_models {judged.row_id}"
        ),
        trained_at=judged.trained_at,
    )
    report.versions_new += 1
    _alias(session, version, "provider_version", qualified, now)
    if judged.training_id:
        _alias(session, version, "training_id", f"{PROVIDER}:{judged.training_id}", now)
    return version


def _has_version(session: Session, run_id: int | None) -> bool:
    query = select(ModelVersion.id).where(ModelVersion.training_run_id == run_id)
    return run_id is not None and session.scalars(query).first() is not None


def _add_version(session: Session, model: UserModel, now: datetime, **values: Any) -> ModelVersion:
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model.id))
    version = ModelVersion(
        model_id=model.id,
        number=(last or 0) + 1,
        provider=PROVIDER,
        weights_state="unverified",
        created_at=now,
        updated_at=now,
        **values,
    )
    session.add(version)
    session.flush()
    return version


def _alias(session: Session, version: ModelVersion, kind: str, alias: str, now: datetime) -> None:
    query = select(VersionAlias.id).where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    if session.scalars(query).first() is None:
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=now))
        session.flush()


def _load_runs(
    session: Session, model: UserModel, rows: Iterable[Row], now: datetime, report: SelfieReport
) -> dict[str, int]:
    """The ended trainings; provider job → our run."""
    found: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: (str(row.get("created_at")), str(row.get("id")))):
        where = f"training_runs {row.get('id')}"
        started = at(row.get("started_at")) or at(row.get("created_at"))
        state = _ENDS.get(str(row.get("status")))
        if state is None and (started is None or now - started > STUCK_AFTER):
            state = "aborted"
            report.defects.append(
                Defect(where, "stuck_pending", f"{row.get('status')} since {started}; loaded as aborted")
            )
        if state is None:
            report.waiting += 1
            what = "may still be training; not loaded, import again when it has ended"
            report.defects.append(Defect(where, "still_training", what))
            continue
        run_id, new = _load_run(session, model, row, state, now)
        report.runs_new += new
        report.runs_known += not new
        if row.get("training_id"):
            found[str(row["training_id"])] = run_id
    return found


def _load_run(session: Session, model: UserModel, row: Row, state: str, now: datetime) -> tuple[int, bool]:
    job = str(row["training_id"])[:128] if row.get("training_id") else None
    # Made from the row, so that loading it again finds it.
    token = hashlib.sha256(f"sselfie {model.user_id} {row.get('id')}".encode()).hexdigest()[:32]
    same = TrainingRun.token == token
    if job is not None:
        same |= (TrainingRun.training_id == job) & (TrainingRun.provider == PROVIDER)
    known = session.scalars(select(TrainingRun.id).where(same)).first()
    if known is not None:
        return known, False
    last = session.scalar(select(func.max(TrainingRun.attempt)).where(TrainingRun.model_id == model.id))
    ended = at(row.get("completed_at")) or at(row.get("created_at")) or now
    run = TrainingRun(
        user_id=model.user_id,
        model_id=model.id,
        attempt=(last or 0) + 1,
        token=token,
        provider=PROVIDER,
        training_id=job,
        destination=model.replicate_model_id or model.model_key,
        base_model=str(row.get("base_model") or "flux-dev")[:100],
        trainer_requested="unknown (imported)",
        parameters=_json(row.get("parameters")),
        parameter_policy="imported",
        trigger_word=model.trigger_word,
        state=state,
        status=_SHOWN[state],
        progress=100 if state == "finalised" else 0,
        error=str(row["error"]) if row.get("error") else None,
        loss_history=[],
        asked_by="import",
        state_changed_at=ended,
        started_at=at(row.get("started_at")),
        completed_at=ended,
        created_at=at(row.get("created_at")) or now,
        updated_at=now,
    )
    session.add(run)
    session.flush()
    return run.id, True


def _load_weights(
    session: Session, model: UserModel, rows: _Rows, now: datetime, report: SelfieReport
) -> None:
    """Where old rows say that weights lie: another name of the version of their training, else a version of its own."""
    jobs = {str(row.get("id")): str(row.get("training_id") or "") for row in rows.runs}
    for row in rows.weights:
        bucket, key = row.get("s3_bucket"), row.get("s3_key")
        if not bucket or not key or row.get("status") == "deleted":
            continue
        address = f"s3://{bucket}/{key}"
        if _known_as(session, "object", address) is not None:
            continue
        job = jobs.get(str(row.get("training_run_id")), "")
        version = _known_as(session, "training_id", f"{PROVIDER}:{job}") if job else None
        if version is None:
            version = _add_version(
                session,
                model,
                now,
                weights_url=address,
                trigger_word=str(row.get("trigger_word") or model.trigger_word)[:64],
                provenance={"weights": f"lora_weights {row.get('id')}"},
                trained_at=at(row.get("created_at")),
            )
            report.versions_new += 1
        elif version.weights_url is None:
            version.weights_url = address
            version.provenance = {**version.provenance, "weights": f"lora_weights {row.get('id')}"}
        _alias(session, version, "object", address, now)


def _known_as(session: Session, kind: str, alias: str) -> ModelVersion | None:
    return session.scalars(
        select(ModelVersion)
        .join(VersionAlias, VersionAlias.version_id == ModelVersion.id)
        .where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    ).first()


def _json(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, dict) else {}


def _keep_reviews(database: Database, report: SelfieReport, now: datetime) -> None:
    with database.begin() as session:
        known = set(session.scalars(select(ReviewItem.subject).where(ReviewItem.kind == REVIEW_KIND)))
        for defect in report.untrusted:
            subject = f"{defect.where}: {defect.kind}"[:300]
            if subject not in known:
                known.add(subject)
                session.add(
                    ReviewItem(
                        kind=REVIEW_KIND, subject=subject, details={"what": defect.what}, created_at=now
                    )
                )
