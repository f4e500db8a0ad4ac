"""What the application is owed word of."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId

_OWED = "delivered_at IS NULL AND given_up_at IS NULL"


class Callback(Base):
    """One event for the application, written in the transaction of the change that it reports."""

    __tablename__ = "callbacks"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(String(64), unique=True)
    """Stable, and the same on every attempt: the receiver knows a repetition by it."""
    kind: Mapped[str] = mapped_column(String(32))
    """`training.completed`, `training.failed` or `version.changed`."""
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id", ondelete="CASCADE"), index=True)
    payload: Mapped[JsonObject]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)
    delivered_at: Mapped[datetime | None]
    given_up_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_callbacks_owed",
            "next_attempt_at",
            sqlite_where=text(_OWED),
            postgresql_where=text(_OWED),
        ),
    )
