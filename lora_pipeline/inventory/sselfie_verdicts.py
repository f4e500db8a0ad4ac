"""What can be trusted of a row of the selfie product's tables, and what cannot. Pure.

Nothing is guessed: a version that is a trainer's, a training's id or a short hash is told and left out, a spelling
that is merely odd is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_pipeline.identity import IdentityError, VersionRef, parse_job_id
from lora_pipeline.identity.errors import shown, without_secrets
from lora_pipeline.inventory.entries import moment
from lora_pipeline.inventory.entry_defects import LOCAL_TIME, STUCK_AFTER, Defect, is_two_hours_ahead
from lora_pipeline.inventory.survivors import is_signed
from lora_pipeline.versions.formats import KNOWN_TRAINERS, StoredVersion, read_stored, weights_problem

_OPEN = frozenset({"pending", "training", "starting", "processing", "queued"})
_TIMES = ("started_at", "created_at", "updated_at", "completed_at")
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class JudgedModel:
    """One row of user_models, with only what can be trusted of it."""

    row_id: str
    user_id: str
    name: str | None
    trigger_word: str | None
    gender: str | None
    training_id: str | None
    version: VersionRef | None
    """Of a known model (`owner/name:hash`); None where none can be trusted."""
    weights_url: str | None
    lora_scale: float
    is_test: bool
    status: str
    trained_at: datetime | None
    created_at: datetime
    updated_at: datetime
    defects: tuple[Defect, ...] = ()

    @property
    def has_version(self) -> bool:
        return self.version is not None


def judge_model(
    row: Mapping[str, Any],
    evidence: Iterable[datetime | None],
    now: datetime,
    trainers: Sequence[VersionRef] = KNOWN_TRAINERS,
) -> JudgedModel:
    """Judge one row. `evidence` are times at which other tables say that its training ended."""
    where = f"user_models {row.get('id')}"
    model_text, job = _model_text(row)
    stored = read_stored(model_text, _text(row.get("replicate_version_id")), trainers)
    version = _trusted(stored)
    weights = _text(row.get("lora_weights_url"))
    told = at(row.get("completed_at"))
    late = is_local_time(told, [*evidence, at(row.get("updated_at"))])
    defects = [
        *_version_defects(row, stored, version, job is not None),
        *_weights_defects(weights, version),
        *_state_defects(row, now),
    ]
    if late:
        defects.append(
            (
                "local_time",
                "completed_at is two hours ahead: local time labelled UTC; loaded two hours earlier",
            )
        )
    usable = weights is not None and weights_problem(weights, version) is None
    return JudgedModel(
        row_id=str(row.get("id")),
        user_id=str(row.get("user_id")),
        name=_text(row.get("model_name")),
        trigger_word=_text(row.get("trigger_word")),
        gender=_text(row.get("gender")),
        training_id=_text(row.get("training_id")) or job,
        version=version,
        weights_url=_unsigned(weights) if usable and weights is not None else None,
        lora_scale=_scale(row.get("lora_scale")) or 1.0,
        is_test=is_test_row(row),
        status=str(row.get("training_status") or "pending"),
        trained_at=told - LOCAL_TIME if late and told is not None else told,
        created_at=at(row.get("created_at")) or _NEVER,
        updated_at=at(row.get("updated_at")) or _NEVER,
        defects=tuple(Defect(where, kind, what) for kind, what in defects),
    )


def fold_defects(rows: Sequence[JudgedModel]) -> Iterator[Defect]:
    """What is odd about several rows of one user, which become versions of one model."""
    if len(rows) < 2:
        return
    where = f"user {rows[0].user_id}"
    yield Defect(where, "several_rows", f"{len(rows)} rows of user_models; folded into versions of one model")
    completed = [row for row in rows if row.has_version]
    if completed and served(completed) is not max(completed, key=lambda row: row.updated_at):
        what = (
            "the newest by created_at is not the newest by updated_at, which a sync bumps; created_at decides"
        )
        yield Defect(where, "two_latest", what)
    if len({row.trigger_word for row in rows}) > 1:
        yield Defect(
            where, "trigger_changed", "the trigger word changed between trainings; the served row's is kept"
        )


def served(rows: Sequence[JudgedModel]) -> JudgedModel | None:
    """The row whose version the old application meant: the newest one that has a version, no test row if possible."""
    usable = [row for row in rows if row.has_version]
    return max(usable, key=lambda row: (not row.is_test, row.created_at, row.row_id), default=None)


def is_local_time(told: datetime | None, evidence: Iterable[datetime | None]) -> bool:
    return any(is_two_hours_ahead(told, one) for one in evidence)


def is_test_row(row: Mapping[str, Any]) -> bool:
    name = _text(row.get("model_name")) or ""
    return bool(row.get("is_test")) or name.lower().startswith("test-")


def at(value: object) -> datetime | None:
    """A time as a driver gives it: a datetime, or a text in SQLite. Without a zone it is taken for UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return moment(value)


def _model_text(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(the model column, None), or (None, the training id that stands in it)."""
    text = _text(row.get("replicate_model_id"))
    try:
        return None, parse_job_id(text or "").text
    except IdentityError:
        return text, None


def _trusted(stored: StoredVersion) -> VersionRef | None:
    """The trained version, where row or spelling tell its model."""
    known = stored.version is not None and not stored.is_trainer and stored.version.model is not None
    return stored.version if known else None


def _version_defects(
    row: Mapping[str, Any], stored: StoredVersion, version: VersionRef | None, job_as_model: bool
) -> Iterator[tuple[str, str]]:
    text = _text(row.get("replicate_version_id"))
    if job_as_model:
        yield "training_id_as_model", "replicate_model_id is a training's id; taken as training_id"
    elif stored.model_problem is not None and _text(row.get("replicate_model_id")):
        yield "malformed_model", stored.model_problem
    if stored.is_trainer:
        yield (
            "trainer_version",
            "the trainer's own version is stored, not the trained one; not loaded. Sync finds it",
        )
    elif stored.version_problem is not None:
        yield "malformed_version", f"not loaded: {stored.version_problem}"
    elif text is not None and version is None:
        yield "version_without_model", "a hash whose model is not known; not loaded"
    elif version is not None and text != version.qualified:
        yield "odd_spelling", f"the version is spelled otherwise; loaded as {version.qualified}"


def _weights_defects(weights: str | None, version: VersionRef | None) -> Iterator[tuple[str, str]]:
    if weights is None:
        if version is not None:
            yield "no_weights", "no address of the weights; the version is loaded without"
        return
    problem = weights_problem(weights, version)
    if problem is None and version is None and _looks_invented(weights):
        problem = "the address of its weights was put together from a hash, which leads nowhere"
    if problem is not None:
        yield "invented_weights", f"not loaded: {problem}"
    elif is_signed(weights):
        yield (
            "signed_address",
            "the address of the weights is presigned and dead by now; loaded without its signature",
        )


def _looks_invented(weights: str) -> bool:
    return any(trainer.hash in weights.lower() for trainer in KNOWN_TRAINERS)


def _state_defects(row: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    status = str(row.get("training_status") or "pending")
    text = _text(row.get("replicate_version_id"))
    since = at(row.get("started_at")) or at(row.get("created_at"))
    if status in _OPEN and (since is None or now - since > STUCK_AFTER):
        yield "stuck_pending", f"{status} since {since or 'nobody knows when'}; no training takes a day"
    if status == "completed" and text is None:
        yield "no_version", "completed without a version. Sync finds it at the provider"
    if status != "completed" and text is None and at(row.get("completed_at")) is not None:
        yield (
            "blanked_by_retrain",
            "a retrain blanked the version that worked before. Sync finds it at the provider",
        )
    if status == "canceled":
        yield "canceled", "written as canceled whether or not the provider agreed; sync tells"
    if _text(row.get("trigger_word")) is None:
        yield "no_trigger", "no trigger word; a new one is made, which old prompts do not know"
    if is_test_row(row):
        yield "test_row", "a test row; loaded and marked as a test"
    if row.get("lora_scale") is not None and _scale(row["lora_scale"]) is None:
        yield "odd_scale", f"lora_scale {shown(row['lora_scale'])} is no scale between 0 and 4; 1.0 is served"
    for key in _TIMES:
        if _text(row.get(key)) is not None and at(row[key]) is None:
            yield "unreadable_time", f"{key} {shown(row[key])} is no time; it counts as unknown"


def _scale(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 < found <= 4 else None


def _unsigned(url: str) -> str:
    return without_secrets(url) if is_signed(url) else url


def _text(value: object) -> str | None:
    text = str(value).strip() if value is not None else ""
    return text or None
