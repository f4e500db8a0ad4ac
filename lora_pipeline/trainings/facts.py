"""The facts about a training run that are shown wherever it is shown: Dagster, command line, HTTP.

Plain JSON values only. Nothing here may identify a person or open a door: no e-mail, no presigned URL,
no token.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ImageSet, TrainingRun
from lora_pipeline.image_sets.facts import image_set_facts
from lora_pipeline.trainings.outbox import AssetEvent

TRAINING_ASSETS = {"replicate": "replicate_training", "runpod": "runpod_training"}


def training_facts(run: TrainingRun) -> dict[str, Any]:
    """What a run is and how far it has come, as JSON."""
    duration = None
    if run.succeeded_at and run.submitted_at:
        duration = round((run.succeeded_at - run.submitted_at).total_seconds(), 1)
    return {
        "run": run.id,
        "attempt": run.attempt,
        "state": run.state,
        "status": run.status,
        "provider": run.provider,
        "simulated": run.simulated,
        "training_id": run.training_id,
        "destination": run.destination,
        "trainer": run.trainer_returned or run.trainer_requested,
        "trigger_word": run.trigger_word,
        "parameters": run.parameters,
        "parameter_policy": run.parameter_policy,
        "progress": run.progress,
        "progress_estimated": run.progress_estimated,
        "loss_history": run.loss_history,
        "image_set": run.image_set_id,
        "zip_sha256": run.zip_sha256,
        "zip_size": run.zip_size,
        "output_version": run.output_version,
        "estimated_cost": run.estimated_cost,
        "cost": run.cost,
        "duration_seconds": duration,
        "hold_reason": run.hold_reason,
        "error": run.error,
    }


def training_event(run: TrainingRun, model_key: str) -> AssetEvent:
    """The event that a run's present state is worth: starts and successes materialise, the rest is observed."""
    state = run.state
    kind = "materialisation" if state in ("submitted", "succeeded") else "observation"
    # Every other state is reached once; these can come again, and each time is news.
    again = f":{run.state_changed_at:%Y%m%d%H%M%S}" if state in ("lost", "held") else ""
    return AssetEvent(
        event_id=f"training:{run.id}:{state}{again}",
        asset_key=TRAINING_ASSETS[run.provider],
        partition=model_key,
        kind=kind,
        facts=training_facts(run),
    )


def image_set_event(session: Session, image_set: ImageSet, model_key: str) -> AssetEvent:
    """The materialisation of `uploaded_image_set` that a frozen set is worth."""
    return AssetEvent(
        event_id=f"set:{image_set.id}",
        asset_key="uploaded_image_set",
        partition=model_key,
        kind="materialisation",
        facts=image_set_facts(session, image_set),
    )


def zip_event(run: TrainingRun, model_key: str) -> AssetEvent:
    """The materialisation of `training_zip` that a packed run is worth."""
    return AssetEvent(
        event_id=f"zip:{run.id}",
        asset_key="training_zip",
        partition=model_key,
        kind="materialisation",
        facts=training_facts(run),
    )
