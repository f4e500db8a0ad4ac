"""Training runs for people and programs: which there are, and everything about one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.trainings.facts import training_facts
from lora_pipeline.trainings.lifecycle import OPEN

_TIMES = ("created_at", "submitted_at", "started_at", "succeeded_at", "completed_at", "last_polled_at")


class TrainingNotFound(LookupError):
    """No training run has this id."""


def list_trainings(
    database: Database, *, model_id: int | None = None, open_only: bool = False, limit: int = 50
) -> list[dict[str, Any]]:
    """The newest runs first, as JSON without anything personal."""
    query = select(TrainingRun, UserModel.model_key).join(UserModel, UserModel.id == TrainingRun.model_id)
    if model_id is not None:
        query = query.where(TrainingRun.model_id == model_id)
    if open_only:
        query = query.where(TrainingRun.state.in_(OPEN))
    with database.read() as session:
        rows = session.execute(query.order_by(TrainingRun.id.desc()).limit(limit)).all()
        return [_shown(run, model_key) for run, model_key in rows]


def show_training(database: Database, identity: str) -> dict[str, Any]:
    """One run, by its number here or by the provider's training id. TrainingNotFound where there is none."""
    query = select(TrainingRun, UserModel.model_key).join(UserModel, UserModel.id == TrainingRun.model_id)
    with database.read() as session:
        row = session.execute(query.where(TrainingRun.training_id == identity).limit(1)).first()
        if row is None and identity.isdecimal() and int(identity) < 2**63:
            row = session.execute(query.where(TrainingRun.id == int(identity))).first()
        if row is None:
            raise TrainingNotFound(
                f"there is no training {identity!r}; expected a run's number or the provider's training id. "
                "See them with: lora-pipeline trainings list"
            )
        return _shown(row[0], row[1])


def _shown(run: TrainingRun, model_key: str) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in _TIMES}
    return {
        "model": model_key,
        **training_facts(run),
        "asked_by": run.asked_by,
        **{name: at.isoformat() if at else None for name, at in times.items()},
    }
