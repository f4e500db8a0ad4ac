"""Keeping what a look at the provider brought, for reports that do not ask again and for interrupted surveys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_pipeline.database.inserting import insertion
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ProviderSighting
from lora_pipeline.versions.asking import Seen
from lora_pipeline.versions.drift import ProviderView, Trouble
from lora_pipeline.versions.sync_targets import Sighting, SyncTarget

_LATEST = ("provider_model", "latest", "latest_at", "problem", "detail", "seen_at")
_COUNT = ("total", "newest", "counted_at")


def remember(database: Database, targets: Mapping[int, SyncTarget], seen: Mapping[int, Seen]) -> None:
    """Write down what was seen (by model id). What was not counted now keeps its last count."""
    counted: list[dict[str, Any]] = []
    uncounted: list[dict[str, Any]] = []
    for model_id, one in seen.items():
        row = _row(targets[model_id], one)
        (uncounted if one.total is None else counted).append(row)
    for rows, columns in ((counted, _LATEST + _COUNT), (uncounted, _LATEST)):
        if not rows:
            continue
        with database.begin() as session:
            statement = insertion(session, ProviderSighting)
            changes = {name: statement.excluded[name] for name in columns}
            session.execute(
                statement.on_conflict_do_update(index_elements=["model_id"], set_=changes),
                sorted(rows, key=lambda row: int(row["model_id"])),
            )


def view_of(sighting: Sighting) -> ProviderView:
    """What was seen then, for the rule that judges it now."""
    trouble = Trouble(sighting.problem) if sighting.problem else None
    return ProviderView(sighting.latest, sighting.latest_at, None, trouble, sighting.detail)


def _row(target: SyncTarget, seen: Seen) -> dict[str, Any]:
    view = seen.view
    return {
        "model_id": target.model_id,
        "provider_model": target.model or "",
        "latest": view.latest,
        "latest_at": view.latest_at,
        "problem": view.trouble.value if view.trouble else None,
        "detail": view.message,
        "seen_at": seen.seen_at,
        "total": seen.total,
        "newest": [[text, at.isoformat() if at else None] for text, at in seen.newest],
        "counted_at": seen.seen_at if seen.total is not None else None,
    }
