"""Callbacks owed to the application, written in the transaction of the change that they report."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from lora_pipeline.database.tables import Callback, ModelVersion, TrainingRun, UserModel

COMPLETED, FAILED, VERSION_CHANGED = "training.completed", "training.failed", "version.changed"


def training_ended(model: UserModel, run: TrainingRun, now: datetime) -> Callback:
    """A training that has reached its end: `training.completed`, or `training.failed` with the reason."""
    completed = run.status == "completed"
    facts = {
        "trainingId": run.training_id,
        "attempt": run.attempt,
        "status": run.status,
        "error": None if completed else run.error,
        "simulated": run.simulated,
    }
    return Callback(**_row(COMPLETED if completed else FAILED, model, facts, now))


def version_changed(model: UserModel, version: ModelVersion, reason: str, now: datetime) -> dict[str, Any]:
    """Another version is served from now on; as the values of a row, since many may be written at once."""
    facts = {
        "version": f"V{version.number}",
        "providerVersion": version.provider_version,
        "triggerWord": version.trigger_word,
        "reason": reason,
        "simulated": version.simulated,
    }
    return _row(VERSION_CHANGED, model, facts, now)


def _row(kind: str, model: UserModel, facts: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "event_id": f"evt_{uuid.uuid4().hex}",
        "kind": kind,
        "model_id": model.id,
        "payload": {"modelId": model.model_key, "userId": model.user_id, **facts},
        "created_at": now,
        "next_attempt_at": now,
    }
