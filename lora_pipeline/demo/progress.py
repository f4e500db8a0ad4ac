"""How far each model of the demo is, read from the database: what the live table and the end of the demo ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    Image,
    ImageSet,
    ImageSetMember,
    ModelVersion,
    OutboxEvent,
    TrainingRun,
    UserModel,
)
from lora_pipeline.image_sets.findings import Finding, Severity, with_severity

WAITING = "waiting for the sensor"
REGISTERED = "registered"

_STAGES = {
    "ready": "packing the ZIP",
    "packed": "submitting",
    "intent": "submitting",
    "submitted": "queued at the provider",
    "running": "training",
    "succeeded": "verifying the weights",
    "finalised": "verifying the weights",
    "lost": "looked for at the provider",
    "held": "held for a person",
}
_STUCK = frozenset({"failed", "canceled", "aborted", "held"})


@dataclass(frozen=True)
class RegisteredVersion:
    """The version that a model serves."""

    version: str
    provider_version: str
    weights: str
    """`verified`, or what they are instead."""
    sha256: str
    simulated: bool
    seconds: float | None
    """From the arrival of the last photograph to the version in the registry."""


@dataclass(frozen=True)
class ModelProgress:
    """Where one model stands."""

    model_key: str
    images: str = ""
    stage: str = WAITING
    percent: int = 0
    estimated: bool = False
    trigger_word: str = ""
    image_set_id: int | None = None
    trouble: str | None = None
    """Why it will not get further by itself."""
    served: RegisteredVersion | None = None

    @property
    def done(self) -> bool:
        """Whether it serves a version whose weights are verified."""
        return self.served is not None and self.served.weights == "verified"


def models_progress(database: Database, model_keys: Sequence[str]) -> list[ModelProgress]:
    """Every model's standing, in the given order."""
    with database.read() as session:
        rows = session.scalars(select(UserModel).where(UserModel.model_key.in_(model_keys)))
        models = {model.model_key: model for model in rows}
        return [_progress(session, key, models.get(key)) for key in model_keys]


def events_owed(database: Database) -> int:
    """Asset events that Dagster has not been given yet."""
    with database.read() as session:
        owed = select(func.count()).select_from(OutboxEvent).where(OutboxEvent.acknowledged_at.is_(None))
        return session.scalar(owed) or 0


def image_outcomes(database: Database, image_set_id: int) -> list[dict[str, Any]]:
    """What became of each file of a set: name, number in the ZIP, what was found."""
    query = (
        select(ImageSetMember, Image)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(ImageSetMember.image_set_id == image_set_id)
        .order_by(ImageSetMember.source_name)
    )
    with database.read() as session:
        return [
            {
                "file": member.source_name,
                "size": f"{image.width} × {image.height}" if image.width else "",
                "outcome": member.verdict,
                "in ZIP": "" if member.position is None else f"{member.position:03}.jpg",
                "what happened": _said(member),
            }
            for member, image in session.execute(query)
        ]


def _progress(session: Session, model_key: str, model: UserModel | None) -> ModelProgress:
    if model is None:
        return ModelProgress(model_key)
    image_set = _newest(session, select(ImageSet).where(ImageSet.model_id == model.id))
    run = _newest(session, select(TrainingRun).where(TrainingRun.model_id == model.id))
    served = _served(session, model, image_set)
    stage, trouble = _stage(image_set, run)
    if served is not None and trouble is None and (run is None or run.state == "finalised"):
        stage = REGISTERED
    return ModelProgress(
        model_key=model_key,
        images=f"{image_set.usable_count} of {image_set.image_count}" if image_set else "",
        stage=stage,
        percent=100 if stage == REGISTERED else run.progress if run else 0,
        estimated=bool(run and run.progress_estimated and run.state == "running"),
        trigger_word=model.trigger_word,
        image_set_id=image_set.id if image_set else None,
        trouble=trouble,
        served=served,
    )


def _stage(image_set: ImageSet | None, run: TrainingRun | None) -> tuple[str, str | None]:
    """What is being done, and why it will not go on."""
    if run is not None:
        trouble = run.error or run.hold_reason or run.state if run.state in _STUCK else None
        return _STAGES.get(run.state, run.state), trouble
    if image_set is None:
        return WAITING, None
    findings = [Finding.from_dict(finding) for finding in image_set.findings]
    blocking = with_severity(findings, Severity.BLOCK)
    # A draft of which only a part is taken in may still lack images; freezing is what decides.
    final = blocking if image_set.state == "ready" else ()
    return "checking photographs", "; ".join(str(finding) for finding in final) or None


def _served(session: Session, model: UserModel, image_set: ImageSet | None) -> RegisteredVersion | None:
    row = session.execute(
        select(ModelVersion, Artifact)
        .join(Activation, Activation.version_id == ModelVersion.id)
        .join(Artifact, Artifact.id == ModelVersion.artifact_id)
        .where(Activation.model_id == model.id, Activation.active_to.is_(None))
    ).first()
    if row is None:
        return None
    version, artifact = row
    arrived = image_set.last_image_at if image_set else None
    return RegisteredVersion(
        version=f"V{version.number}",
        provider_version=version.provider_version or "",
        weights=version.weights_state,
        sha256=artifact.file_sha256,
        simulated=version.simulated,
        seconds=(version.created_at - arrived).total_seconds() if arrived else None,
    )


def _newest(session: Session, query: Any) -> Any:
    return session.scalars(query.order_by(query.selected_columns.id.desc()).limit(1)).one_or_none()


def _said(member: ImageSetMember) -> str:
    findings = [Finding.from_dict(finding) for finding in member.findings]
    if member.verdict == "excluded":
        return "; ".join(finding.message for finding in with_severity(findings, Severity.EXCLUDE))
    return "; ".join(f.message for f in findings if f.severity is not Severity.NOTE)
