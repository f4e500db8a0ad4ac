"""One training run by its number, for operations that a person asks for: its row, its model, its provider."""

from __future__ import annotations

from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.providers.protocol import TrainingProvider
from lora_pipeline.trainings.listing import TrainingNotFound


def locked_run(session: Session, run_id: int) -> TrainingRun:
    """The run, locked until the caller's transaction ends. Raises TrainingNotFound."""
    run = session.get(TrainingRun, run_id, with_for_update=True)
    if run is None:
        raise _not_found(run_id)
    return run


def provider_of(connections: Connections, run_id: int) -> TrainingProvider:
    """Where a run is trained. Raises TrainingNotFound, and SettingsError where that provider is not set up."""
    with connections.database.read() as session:
        run = session.get(TrainingRun, run_id)
        if run is None:
            raise _not_found(run_id)
        return connections.provider_named(run.provider)


def model_key_of(session: Session, run: TrainingRun) -> str:
    """The key of the model that a run trains."""
    return session.get_one(UserModel, run.model_id).model_key


def _not_found(run_id: int) -> TrainingNotFound:
    return TrainingNotFound(
        f"there is no training run {run_id}; see their numbers with: lora-pipeline trainings list"
    )
