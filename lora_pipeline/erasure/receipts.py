"""What was erased, when, by whom, what stays and until when: without a word about whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Erasure, ErasureStep


class ReceiptNotFound(LookupError):
    """There is no receipt of that id."""


def receipt(session: Session, erasure_id: str) -> dict[str, Any]:
    """The receipt, or, while the erasure goes on, how far it is. Plain JSON. Raises ReceiptNotFound."""
    row = session.get(Erasure, erasure_id.strip())
    if row is None:
        raise ReceiptNotFound("there is no receipt of this id. Find it by the user: lora-pipeline erase USER")
    steps = session.scalars(
        select(ErasureStep).where(ErasureStep.erasure_id == row.id).order_by(ErasureStep.id)
    ).all()
    deleted = [step for step in steps if step.state == "deleted"]
    return {
        "receipt": row.id,
        "user_hash": row.user_hash,
        "state": "completed" if row.completed_at else "in progress",
        "by": row.actor,
        "began_at": row.began_at,
        "completed_at": row.completed_at,
        "deleted": dict(sorted(Counter(step.kind for step in deleted).items())),
        "already_gone": sum(step.state == "gone" for step in steps),
        "rows": dict(row.rows),
        "sha256": sorted({step.sha256 for step in deleted if step.sha256}),
        "stays": [
            {"what": step.kind, "why": step.reason, "until": step.until}
            for step in steps
            if step.state == "stays" or (step.target is not None and row.completed_at)
        ],
        "waiting": [
            {"what": step.kind, "why": step.reason}
            for step in steps
            if step.target is not None and not row.completed_at
        ],
    }
