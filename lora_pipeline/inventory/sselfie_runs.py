"""The trainings of the selfie product that have ended, as training runs. Twice without effect."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.inventory.entry_defects import STUCK_AFTER, Defect
from lora_pipeline.inventory.sselfie_tables import PROVIDER, Row, json_object
from lora_pipeline.inventory.sselfie_verdicts import at

_ENDS = {"completed": "finalised", "succeeded": "finalised", "failed": "failed", "canceled": "canceled"}
_SHOWN = {"finalised": "completed", "failed": "failed", "canceled": "canceled", "aborted": "failed"}
_LONGEST_JOB = 128


@dataclass(slots=True)
class LoadedRuns:
    """What became of a user's trainings."""

    by_job: dict[str, int] = field(default_factory=dict)
    """The provider's job → our run."""
    new: int = 0
    known: int = 0
    waiting: int = 0
    defects: list[Defect] = field(default_factory=list)


def load_runs(session: Session, model: UserModel, rows: Iterable[Row], now: datetime) -> LoadedRuns:
    """The ended trainings; those stuck for longer than any training takes as aborted."""
    loaded = LoadedRuns()
    for row in sorted(rows, key=lambda row: (str(row.get("created_at")), str(row.get("id")))):
        where = f"training_runs {row.get('id')}"
        started = at(row.get("started_at")) or at(row.get("created_at"))
        state = _ENDS.get(str(row.get("status")))
        if state is None and (started is None or now - started > STUCK_AFTER):
            state = "aborted"
            what = f"{row.get('status')} since {started or 'nobody knows when'}; loaded as aborted"
            loaded.defects.append(Defect(where, "stuck_pending", what))
        if state is None:
            loaded.waiting += 1
            what = "may still be training; not loaded, import again when it has ended"
            loaded.defects.append(Defect(where, "still_training", what))
            continue
        run_id, new = _load_run(session, model, row, state, now)
        loaded.new += new
        loaded.known += not new
        if row.get("training_id"):
            loaded.by_job[str(row["training_id"])] = run_id
    return loaded


def _load_run(session: Session, model: UserModel, row: Row, state: str, now: datetime) -> tuple[int, bool]:
    job = str(row["training_id"])[:_LONGEST_JOB] if row.get("training_id") else None
    # Made from the row, so that loading it again finds it.
    token = hashlib.sha256(f"sselfie {model.user_id} {row.get('id')}".encode()).hexdigest()[:32]
    same = TrainingRun.token == token
    if job is not None:
        same |= (TrainingRun.training_id == job) & (TrainingRun.provider == PROVIDER)
    known = session.scalars(select(TrainingRun.id).where(same)).first()
    if known is not None:
        return known, False
    last = session.scalar(select(func.max(TrainingRun.attempt)).where(TrainingRun.model_id == model.id))
    ended = at(row.get("completed_at")) or at(row.get("created_at")) or now
    run = TrainingRun(
        user_id=model.user_id,
        model_id=model.id,
        attempt=(last or 0) + 1,
        token=token,
        provider=PROVIDER,
        training_id=job,
        destination=model.replicate_model_id or model.model_key,
        base_model=str(row.get("base_model") or "flux-dev")[:100],
        trainer_requested="unknown (imported)",
        parameters=json_object(row.get("parameters")),
        parameter_policy="imported",
        trigger_word=model.trigger_word,
        state=state,
        status=_SHOWN[state],
        progress=100 if state == "finalised" else 0,
        error=str(row["error"]) if row.get("error") else None,
        loss_history=[],
        asked_by="import",
        state_changed_at=ended,
        started_at=at(row.get("started_at")),
        completed_at=ended,
        created_at=at(row.get("created_at")) or now,
        updated_at=now,
    )
    session.add(run)
    session.flush()
    return run.id, True
