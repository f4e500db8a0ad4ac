"""Long work that somebody asked for over HTTP and did not wait for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject


class BackgroundJob(Base):
    """One such job: what was asked for, how far it is, and what came of it."""

    __tablename__ = "background_jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    options: Mapped[JsonObject] = mapped_column(default=dict)
    actor: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16), default="running")
    message: Mapped[str] = mapped_column(Text, default="")
    """The latest it has said."""
    report: Mapped[JsonObject | None]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    """When it last showed a sign of life: one whose process died says nothing any more."""
    ended_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("state IN ('running', 'completed', 'failed')", name="state"),)
