"""Which trainings are stuck: since when, why, and what to do. Reads the database and nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.trainings.choices import choices_for
from lora_pipeline.trainings.controls import submission_switch
from lora_pipeline.trainings.deadlines import StuckRules, StuckTraining, WaitingRun, find_stuck
from lora_pipeline.trainings.intents import recent_durations
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.trainings.outputs import outputs_are_known
from lora_pipeline.trainings.parameters import steps_of
from lora_pipeline.trainings.progress import expected_seconds

_COLUMNS = (
    TrainingRun.id,
    UserModel.model_key,
    TrainingRun.provider,
    TrainingRun.state,
    TrainingRun.state_changed_at,
    TrainingRun.training_id,
    TrainingRun.cancel_requested_at,
    TrainingRun.succeeded_at,
    TrainingRun.output_version,
    TrainingRun.output_artifact_url,
    TrainingRun.hold_reason,
    TrainingRun.error,
    TrainingRun.parameters,
)


def stuck_trainings(
    database: Database, now: datetime, rules: StuckRules | None = None
) -> list[StuckTraining]:
    """Every open training that is beyond its deadline, the longest waiting first.

    The number of queries does not grow with the number of trainings.
    """
    with database.read() as session:
        switch = submission_switch(session)
        rows = session.execute(
            select(*_COLUMNS)
            .join(UserModel, UserModel.id == TrainingRun.model_id)
            .where(TrainingRun.state.in_(OPEN))
            .order_by(TrainingRun.state_changed_at, TrainingRun.id)
        ).all()
        history = {
            provider: recent_durations(session, provider) for provider in {row.provider for row in rows}
        }
    paused = switch.reason if switch.paused else None
    known = rules or StuckRules()
    found = (find_stuck(_waiting(row, history), now, known, paused=paused) for row in rows)
    return sorted((item for item in found if item is not None), key=lambda item: item.since)


def stuck_facts(stuck: StuckTraining) -> dict[str, Any]:
    """One stuck training as JSON, for every face alike."""
    return {
        "run": stuck.run_id,
        "model": stuck.model_key,
        "state": stuck.state.value,
        "since": stuck.since.isoformat(timespec="seconds"),
        "why": stuck.why,
        "next": stuck.next_command,
    }


def _waiting(row: Any, history: dict[str, list[float]]) -> WaitingRun:
    state = TrainingState(row.state)
    outputs_known = outputs_are_known(row.provider, row.output_version, row.output_artifact_url)
    return WaitingRun(
        run_id=row.id,
        model_key=row.model_key,
        state=state,
        since=row.state_changed_at,
        training_id=row.training_id,
        cancel_requested_at=row.cancel_requested_at,
        reason=row.hold_reason or row.error,
        outputs_known=outputs_known,
        choices=choices_for(state, paid=row.succeeded_at is not None, outputs_known=outputs_known),
        expected_seconds=expected_seconds(history[row.provider], steps_of(row.parameters)),
    )
