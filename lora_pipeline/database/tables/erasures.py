"""What was erased, for whom nobody can read any more: journals while an erasure goes on, receipts once it is done."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId

_OPEN = "target IS NOT NULL"


class Erasure(Base):
    """One erasure of one user. Once it is completed it holds no personal data: it is the receipt."""

    __tablename__ = "erasures"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """Keyed hash of the user's id: proves for a given user that they were erased, and names nobody."""
    actor: Mapped[str] = mapped_column(String(128))
    rows: Mapped[JsonObject] = mapped_column(default=dict)
    """Table → rows that were deleted."""
    began_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class ErasureStep(Base):
    """One thing outside the database that has to go, and what became of it."""

    __tablename__ = "erasure_steps"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    erasure_id: Mapped[str] = mapped_column(String(32), ForeignKey("erasures.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    target: Mapped[str | None] = mapped_column(Text)
    """Where it lies; None as soon as that is no longer needed, since names and addresses tell of people."""
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    """Of the file that was deleted."""
    state: Mapped[str] = mapped_column(String(16), default="pending")
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it stays, or waits; holds no name and no address."""
    until: Mapped[datetime | None]
    """When what stays goes by itself."""
    changed_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'asked', 'deleted', 'gone', 'stays')", name="state"),
        Index(
            "ix_erasure_steps_open",
            "erasure_id",
            sqlite_where=text(_OPEN),
            postgresql_where=text(_OPEN),
        ),
    )


class ErasedName(Base):
    """A name of somebody who was erased, as a keyed hash: it is recognised, and cannot be read."""

    __tablename__ = "erased_names"

    name_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    erasure_id: Mapped[str] = mapped_column(String(32), ForeignKey("erasures.id"), index=True)
