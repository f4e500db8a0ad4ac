"""Times as facts: moments, and the periods in which a version was served."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row


def moment(at: datetime | None) -> str | None:
    """A time as JSON has it."""
    return at.isoformat() if at is not None else None


def period(activation: Row[Any]) -> dict[str, Any]:
    """One activation; `to` is None where it still is in force."""
    return {
        "from": moment(activation.active_from),
        "to": moment(activation.active_to),
        "by": activation.actor,
        "why": activation.reason,
        "pinned": activation.pinned,
    }
