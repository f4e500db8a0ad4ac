"""A model's versions for people and programs: numbers, weights, and which one is served."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    ModelVersion,
    UserModel,
    VersionAlias,
)
from lora_pipeline.versions.merged_away import still_stands


def versions_of(session: Session, model: UserModel) -> list[dict[str, Any]]:
    """Every version, newest first, as JSON without anything personal."""
    rows = session.execute(
        select(ModelVersion, Artifact, Activation)
        .outerjoin(Artifact, Artifact.id == ModelVersion.artifact_id)
        .outerjoin(Activation, (Activation.version_id == ModelVersion.id) & Activation.active_to.is_(None))
        .where(ModelVersion.model_id == model.id, still_stands())
        .order_by(ModelVersion.number.desc())
    ).all()
    names: dict[int, list[str]] = {}
    for version_id, alias in session.execute(
        select(VersionAlias.version_id, VersionAlias.alias)
        .join(ModelVersion, ModelVersion.id == VersionAlias.version_id)
        .where(ModelVersion.model_id == model.id)
        .order_by(VersionAlias.id)
    ):
        names.setdefault(version_id, []).append(alias)
    return [
        {
            "version": f"V{version.number}",
            **_serving(activation),
            "weights": version.weights_state,
            **_content(artifact),
            "trigger_word": version.trigger_word,
            "lora_scale": version.lora_scale,
            "images": version.image_count,
            "provider": version.provider,
            "provider_version": version.provider_version,
            "weights_url": version.weights_url,
            "parameters": version.parameters,
            "is_good": version.is_good,
            "simulated": version.simulated,
            "trained_at": _iso(version.trained_at),
            "last_synced_at": _iso(version.last_synced_at),
            "other_names": names.get(version.id, []),
        }
        for version, artifact, activation in rows
    ]


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _serving(activation: Activation | None) -> dict[str, Any]:
    if activation is None:
        return {"active": False, "pinned": False, "active_since": None}
    return {"active": True, "pinned": activation.pinned, "active_since": activation.active_from.isoformat()}


def _content(artifact: Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {"sha256": None, "size": None}
    return {"sha256": artifact.file_sha256, "size": artifact.size}
