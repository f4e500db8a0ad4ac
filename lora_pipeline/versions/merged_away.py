"""Versions that were merged into another: their rows and numbers stay, but they are counted and shown no more."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists

from lora_pipeline.database.tables import ModelVersion, VersionRedirect


def still_stands() -> ColumnElement[bool]:
    """Whether a version was not merged into another: for a query over `ModelVersion`."""
    return ~exists().where(VersionRedirect.old_version_id == ModelVersion.id)
