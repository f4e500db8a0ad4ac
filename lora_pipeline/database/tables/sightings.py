"""What the provider had of each model when it was last looked at: a memory, never the truth."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, RowId


class ProviderSighting(Base):
    """The newest version of a model as the provider last showed it, and how many there were when counted.

    Counting a model's versions costs a request; the trainings list tells the newest of a hundred models in one.
    So the two were seen at two different times, and both say when.
    """

    __tablename__ = "provider_sightings"

    model_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("user_models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    provider_model: Mapped[str] = mapped_column(String(200), default="")
    """`owner/name` that was looked at: a sighting of another name says nothing."""
    latest: Mapped[str | None] = mapped_column(String(64))
    """The hash of the newest version; None where a problem stands instead."""
    latest_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(32))
    """The verdict that looking ended with, where no version was seen."""
    detail: Mapped[str] = mapped_column(Text, default="")
    seen_at: Mapped[datetime]
    total: Mapped[int | None]
    """Versions over all pages; None where they were never counted."""
    newest: Mapped[list[Any]] = mapped_column(default=list)
    """The five newest at the last count: `[hash, created_at]`."""
    counted_at: Mapped[datetime | None]
