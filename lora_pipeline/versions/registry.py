"""The registry: one version for one LoRA, with its artifact, its place and every name it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Artifact,
    ImageSet,
    LoraWeights,
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
)
from lora_pipeline.identity import VersionRef
from lora_pipeline.versions.artifacts import keep_artifact, keep_location, place_of
from lora_pipeline.versions.merged_away import still_stands
from lora_pipeline.versions.weights import VerifiedWeights


@dataclass(frozen=True)
class ArchivedWeights:
    """Verified weights and where our own copy lies."""

    weights: VerifiedWeights
    address: str
    """`s3://…` or `file://…`, never presigned."""
    etag: str
    object_version: str


class VersionTaken(Exception):
    """The provider's version is registered for something else; the message says for what."""


def register_version(
    session: Session,
    run: TrainingRun,
    model: UserModel,
    archived: ArchivedWeights,
    provider_version: VersionRef | None,
    now: datetime,
) -> ModelVersion:
    """The version of a succeeded run: made once, found again on every repetition.

    `provider_version` is None where the provider keeps no versions. One that a sync brought in, or that a person
    registered, before its run was known is completed. Raises VersionTaken where another run or model has it. The caller
    has locked the model, so that two finalisations cannot give out one number.
    """
    known = session.scalars(select(ModelVersion).where(ModelVersion.training_run_id == run.id)).one_or_none()
    if known is not None:
        return known
    artifact = _artifact(session, archived, now)
    version = (
        _brought_in(session, run, provider_version)
        or _registered_by_hand(session, model, artifact)
        or ModelVersion(model_id=model.id, number=next_number(session, model.id), created_at=now)
    )
    version.artifact_id = artifact.id
    version.training_run_id = run.id
    version.provider = run.provider
    version.provider_version = str(provider_version) if provider_version else None
    version.weights_url = archived.address
    version.weights_state = "verified"
    version.trigger_word = run.trigger_word
    version.lora_scale = version.lora_scale or 1.0
    version.parameters = run.parameters
    version.image_count = session.scalar(select(ImageSet.usable_count).where(ImageSet.id == run.image_set_id))
    version.provenance = _provenance(run)
    version.simulated = run.simulated
    version.trained_at = run.succeeded_at or now
    version.updated_at = now
    session.add(version)
    session.flush()
    _alias(session, version, "training_id", f"{run.provider}:{run.training_id}", now)
    if version.provider_version is not None:
        _alias(session, version, "provider_version", version.provider_version, now)
    elif run.output_artifact_url is not None:
        # Where no version stands for the weights, they also go by the place that the worker left them at.
        _alias(session, version, "object", run.output_artifact_url, now)
    _alias(session, version, "object", archived.address, now)
    _record_weights(session, run, artifact, archived, now)
    return version


def _brought_in(
    session: Session, run: TrainingRun, provider_version: VersionRef | None
) -> ModelVersion | None:
    """The provider's version as it is registered without a run, if it is."""
    if provider_version is None:
        return None
    version = session.scalars(
        select(ModelVersion).where(ModelVersion.provider_version == str(provider_version))
    ).one_or_none()
    if version is None:
        return None
    if version.training_run_id is not None or version.model_id != run.model_id:
        raise VersionTaken(
            f"{provider_version} is registered as V{version.number} of model {version.model_id} already, for "
            f"training run {version.training_run_id}; expected a version of this training alone"
        )
    return version


def _registered_by_hand(session: Session, model: UserModel, artifact: Artifact) -> ModelVersion | None:
    """The model's version of this content that no training is known of, if there is one: it is the same LoRA."""
    statement = select(ModelVersion).where(
        ModelVersion.model_id == model.id,
        ModelVersion.artifact_id == artifact.id,
        ModelVersion.training_run_id.is_(None),
        ModelVersion.provider_version.is_(None),
        still_stands(),
    )
    return session.scalars(statement.order_by(ModelVersion.id).limit(1)).first()


def attach_weights(
    session: Session,
    version: ModelVersion,
    model: UserModel,
    archived: ArchivedWeights,
    now: datetime,
    source: str = "downloaded, verified and archived by us",
) -> None:
    """The verified weights of a version that no training of ours made. The caller has locked the model."""
    artifact = _artifact(session, archived, now)
    version.artifact_id = artifact.id
    version.weights_url, version.weights_state = archived.address, "verified"
    version.provenance = version.provenance | {"weights": source}
    version.updated_at = now
    _alias(session, version, "object", archived.address, now)
    place = place_of(archived.address)
    session.add(
        LoraWeights(
            user_id=model.user_id,
            training_run_id=None,
            artifact_id=artifact.id,
            trigger_word=version.trigger_word,
            base_model="unknown",
            s3_bucket=place.bucket,
            s3_key=place.key,
            file_size=archived.weights.size,
            checksum=archived.weights.file_sha256,
            rank=archived.weights.rank,
            network_type="lora",
            status="available",
            default_scales={"lora_scale": version.lora_scale},
            metadata_={"simulated": version.simulated, "provider_version": version.provider_version},
            created_at=now,
            updated_at=now,
        )
    )


def next_number(session: Session, model_id: int) -> int:
    """The number of the model's next version. The caller has locked the model."""
    highest = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model_id))
    return (highest or 0) + 1


def version_facts(version: ModelVersion, artifact: Artifact | None) -> dict[str, Any]:
    """What is shown of a version: plain JSON, nothing personal, no signed URL."""
    return {
        "version": version.number,
        "provider_version": version.provider_version,
        "weights_url": version.weights_url,
        "weights_state": version.weights_state,
        "trigger_word": version.trigger_word,
        "lora_scale": version.lora_scale,
        "parameters": version.parameters,
        "image_count": version.image_count,
        "simulated": version.simulated,
        "sha256": artifact.file_sha256 if artifact else None,
        "content_key": artifact.content_key if artifact else None,
        "autov2": artifact.autov2 if artifact else None,
        "autov3": artifact.autov3 if artifact else None,
        "size": artifact.size if artifact else None,
        "rank": artifact.rank if artifact else None,
        "trained_at": version.trained_at.isoformat() if version.trained_at else None,
    }


def _artifact(session: Session, archived: ArchivedWeights, now: datetime) -> Artifact:
    """The artifact of these tensors, with the place where this copy lies."""
    artifact = keep_artifact(session, archived.weights, now)
    place = place_of(archived.address)
    keep_location(
        session, artifact, place, archived.object_version, archived.etag, archived.weights.size, now
    )
    return artifact


def _record_weights(
    session: Session, run: TrainingRun, artifact: Artifact, archived: ArchivedWeights, now: datetime
) -> None:
    place = place_of(archived.address)
    session.add(
        LoraWeights(
            user_id=run.user_id,
            training_run_id=run.id,
            artifact_id=artifact.id,
            trigger_word=run.trigger_word,
            base_model=run.base_model,
            s3_bucket=place.bucket,
            s3_key=place.key,
            file_size=archived.weights.size,
            checksum=archived.weights.file_sha256,
            rank=archived.weights.rank,
            network_type="lora",
            status="available",
            default_scales={"lora_scale": 1.0},
            metadata_={"simulated": run.simulated, "training_id": run.training_id},
            created_at=now,
            updated_at=now,
        )
    )


def _alias(session: Session, version: ModelVersion, kind: str, alias: str, now: datetime) -> None:
    taken = session.scalars(
        select(VersionAlias).where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    ).one_or_none()
    if taken is None:
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=now))


def _provenance(run: TrainingRun) -> dict[str, str]:
    training = f"training run {run.id}"
    return {
        "provider_version": f"{run.provider} training {run.training_id}",
        "weights": "downloaded, verified and archived by us",
        "parameters": training,
        "trigger_word": training,
        "image_count": f"image set {run.image_set_id}",
    }
