"""One training run by its number, locked, for operations that a person asks for."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.trainings.listing import TrainingNotFound


def locked_run(session: Session, run_id: int) -> TrainingRun:
    """The run, locked until the caller's transaction ends. Raises TrainingNotFound."""
    run = session.get(TrainingRun, run_id, with_for_update=True)
    if run is None:
        raise TrainingNotFound(
            f"there is no training run {run_id}; see their numbers with: lora-pipeline trainings list"
        )
    return run


def model_key_of(session: Session, run: TrainingRun) -> str:
    """The key of the model that a run trains."""
    return session.get_one(UserModel, run.model_id).model_key
