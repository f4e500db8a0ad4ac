"""What keeps the pipeline honest: events owed to Dagster, deliveries, switches, and the audit log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId


class OutboxEvent(Base):
    """An asset event owed to Dagster, written in the transaction of the change that it reports.

    A tick claims a batch under a token and hands the token on as its cursor; the next tick, which runs
    only if Dagster stored the events, acknowledges by that token. `event_id` makes duplicates harmless.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(String(64), unique=True)
    asset_key: Mapped[str] = mapped_column(String(100))
    partition: Mapped[str | None] = mapped_column(String(100))
    payload: Mapped[JsonObject] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    claim_token: Mapped[str | None] = mapped_column(String(36), index=True)
    acknowledged_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_outbox_owed",
            "id",
            sqlite_where=text("acknowledged_at IS NULL"),
            postgresql_where=text("acknowledged_at IS NULL"),
        ),
    )


class WebhookDelivery(Base):
    """A provider's webhook as it came, kept so that one for a job not yet known is matched later."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    provider: Mapped[str] = mapped_column(String(16))
    delivery_id: Mapped[str] = mapped_column(String(128))
    job_id: Mapped[str] = mapped_column(String(128), index=True)
    status: Mapped[str] = mapped_column(String(32))
    body_sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("provider", "delivery_id"),
        Index(
            "ix_webhook_deliveries_waiting",
            "provider",
            "id",
            sqlite_where=text("handled_at IS NULL"),
            postgresql_where=text("handled_at IS NULL"),
        ),
    )


class Control(Base):
    """A switch of the running system that outlives processes, such as paused submissions."""

    __tablename__ = "controls"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[JsonObject] = mapped_column(default=dict)
    changed_by: Mapped[str] = mapped_column(String(128))
    changed_at: Mapped[datetime]


class AuditEntry(Base):
    """Who did what to which model, and why. Holds no secret and no personal data."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(300), index=True)
    details: Mapped[JsonObject] = mapped_column(default=dict)
