"""Who may ask over HTTP, and what was asked for already."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId


class ApiKey(Base):
    """A key of the HTTP interface, by its hash: one user's, or an administrator's (no user)."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    """What people call it, and what the audit log shows as the actor."""
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[str | None] = mapped_column(String(64), ForeignKey("users.id", ondelete="CASCADE"))
    is_admin: Mapped[bool]
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    # A key that is neither would reach nothing; one that is both would make a user's leak an administrator's.
    __table_args__ = (CheckConstraint("is_admin = (user_id IS NULL)", name="scope"),)


class IdempotencyKey(Base):
    """A request that its sender may repeat: what it was, the model it is about, and what it was answered."""

    __tablename__ = "idempotency_keys"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(200))
    request_sha256: Mapped[str] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None]
    """While somebody is answering it; None once it is answered."""
    answer: Mapped[JsonObject | None]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("user_id", "key"),)
