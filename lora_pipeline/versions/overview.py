"""The whole registry at a glance: counts, and the newest versions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Artifact, ModelVersion, TrainingRun, UserModel
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.versions.merged_away import still_stands

_NEWEST = 20


def registry_facts(database: Database) -> dict[str, Any]:
    """Counts over the registry and its newest versions, as JSON without anything personal."""
    with database.read() as session:
        count = select(func.count())
        open_trainings = count.select_from(TrainingRun).where(TrainingRun.state.in_(OPEN))
        held = count.select_from(TrainingRun).where(TrainingRun.state == TrainingState.HELD)
        served = count.select_from(UserModel).where(UserModel.replicate_version_id.is_not(None))
        versions = count.select_from(ModelVersion).where(still_stands())
        unverified = versions.where(ModelVersion.weights_state != "verified")
        newest = session.execute(
            select(UserModel, ModelVersion, func.coalesce(Artifact.file_sha256, ""))
            .join(ModelVersion, ModelVersion.model_id == UserModel.id)
            .outerjoin(Artifact, Artifact.id == ModelVersion.artifact_id)
            .where(still_stands())
            .order_by(ModelVersion.id.desc())
            .limit(_NEWEST)
        ).all()
        return {
            "models": session.scalar(count.select_from(UserModel)) or 0,
            "models_served": session.scalar(served) or 0,
            "versions": session.scalar(versions) or 0,
            "unverified": session.scalar(unverified) or 0,
            "open_trainings": session.scalar(open_trainings) or 0,
            "held_trainings": session.scalar(held) or 0,
            "newest": [
                {
                    "model": model.model_key,
                    "version": f"V{version.number}",
                    "provider version": version.provider_version or "",
                    "weights": version.weights_state,
                    "sha256": sha256[:12],
                    "trigger word": version.trigger_word,
                    "simulated": "yes" if version.simulated else "",
                }
                for model, version, sha256 in newest
            ],
        }


def models_after(database: Database, model_id: int) -> tuple[int, list[str]]:
    """The newest model's id and the keys of all models made after `model_id`: what Dagster does not know yet."""
    with database.read() as session:
        rows = session.execute(
            select(UserModel.id, UserModel.model_key).where(UserModel.id > model_id).order_by(UserModel.id)
        ).all()
    return (rows[-1].id if rows else model_id), [row.model_key for row in rows]
