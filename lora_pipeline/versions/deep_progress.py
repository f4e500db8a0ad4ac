"""How far a deep bulk sync has come: one that was killed goes on where it was, not from the start."""

from __future__ import annotations

from datetime import datetime, timedelta

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Control

_NAME = "deep bulk sync"
_FRESH_FOR = timedelta(hours=6)
"""What was counted longer ago than this is counted again, whoever began it."""


def begin_deep(connections: Connections, only: str) -> datetime:
    """Since when counts belong to this deep sync: its start, or that of the one it takes up."""
    now = connections.now()
    with connections.database.begin() as session:
        row = session.get(Control, _NAME, with_for_update=True)
        if row is None:
            row = Control(name=_NAME, value={}, changed_by="bulk sync", changed_at=now)
            session.add(row)
        since = datetime.fromisoformat(row.value["since"]) if row.value else None
        if since is not None and row.value["only"] == only and now - since < _FRESH_FOR:
            return since
        row.value, row.changed_at = {"since": now.isoformat(), "only": only}, now
    return now


def end_deep(connections: Connections) -> None:
    """It came to its end: the next one counts everything anew."""
    with connections.database.begin() as session:
        row = session.get(Control, _NAME, with_for_update=True)
        if row is not None:
            row.value, row.changed_at = {}, connections.now()
