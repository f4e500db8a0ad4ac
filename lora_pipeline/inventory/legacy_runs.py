"""An old entry that led to no version as a training run: failed, or pending and forgotten. Twice without effect."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.identity import job_of
from lora_pipeline.inventory.entry_defects import STUCK_AFTER
from lora_pipeline.inventory.legacy_entries import ImportedEntry
from lora_pipeline.inventory.legacy_versions import PROVIDER, Loaded

_POLICY = "imported"


def load_run(session: Session, model: UserModel, entry: ImportedEntry, now: datetime) -> Loaded | None:
    """The training run of a failed entry, or of one forgotten as pending; None where it is neither."""
    state, error = _end_of(entry, now)
    if state is None:
        return None
    # Made from the entry, so that loading it again finds it.
    token = hashlib.sha256(f"legacy {model.model_key} {entry.id}".encode()).hexdigest()[:32]
    job = job_of(entry.id)
    training_id = job.text if job is not None else None
    same = TrainingRun.token == token
    if training_id is not None:
        same |= (TrainingRun.training_id == training_id) & (TrainingRun.provider == PROVIDER)
    known = session.scalars(select(TrainingRun.id).where(same)).first()
    if known is not None:
        return Loaded(known, new=False)
    last = session.scalar(select(func.max(TrainingRun.attempt)).where(TrainingRun.model_id == model.id))
    ended = entry.ended_at or now
    run = TrainingRun(
        user_id=model.user_id,
        model_id=model.id,
        attempt=(last or 0) + 1,
        token=token,
        provider=PROVIDER,
        training_id=training_id,
        destination=model.model_key,
        base_model="flux-dev",
        trainer_requested="unknown (imported)",
        parameters=entry.parameters,
        parameter_policy=_POLICY,
        trigger_word=entry.trigger_word or model.trigger_word,
        state=state,
        status="failed",
        error=error,
        loss_history=[],
        asked_by="import",
        state_changed_at=ended,
        submitted_at=entry.started_at,
        completed_at=ended,
        created_at=entry.started_at or now,
        updated_at=now,
    )
    session.add(run)
    session.flush()
    return Loaded(run.id, new=True)


def _end_of(entry: ImportedEntry, now: datetime) -> tuple[str | None, str]:
    if entry.status == "failed":
        return "failed", str(entry.entry.get("error") or "Training failed")
    started = entry.started_at
    if entry.status == "pending" and (started is None or now - started > STUCK_AFTER):
        return "aborted", "pending in the old system, and never heard of again"
    return None, ""
