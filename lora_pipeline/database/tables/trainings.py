"""Training runs: one row an attempt, from the intent to its true end."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId

_OPEN = "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'lost', 'held')"


class TrainingRun(Base):
    """One attempt at one paid training.

    `state` is the internal lifecycle; `status` shows it in the seeds' words and is written with it.
    The unique index over open runs is what makes two starts of one model at once impossible.
    """

    __tablename__ = "training_runs"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64), ForeignKey("users.id"), index=True)
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id"), index=True)
    image_set_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("image_sets.id"), index=True)
    attempt: Mapped[int] = mapped_column(default=1)
    token: Mapped[str] = mapped_column(String(36), unique=True)
    """Our mark inside the ZIP's address (or the provider's file id): the only thing a provider echoes."""
    provider: Mapped[str] = mapped_column(String(16))
    training_id: Mapped[str | None] = mapped_column(String(128))
    """The provider's id of the job, verbatim."""
    simulated: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    destination: Mapped[str] = mapped_column(String(200))
    base_model: Mapped[str] = mapped_column(String(100))
    trainer_requested: Mapped[str] = mapped_column(String(300))
    trainer_returned: Mapped[str | None] = mapped_column(String(300))
    parameters: Mapped[JsonObject] = mapped_column(default=dict)
    parameter_policy: Mapped[str] = mapped_column(String(64), default="default/1")
    trigger_word: Mapped[str] = mapped_column(String(64))
    dataset_zip_url: Mapped[str | None] = mapped_column(Text)
    """Address of the ZIP in our store; never presigned. None once the ZIP is deleted."""
    zip_key: Mapped[str | None] = mapped_column(Text)
    zip_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    zip_size: Mapped[int | None] = mapped_column(RowId)
    provider_file_id: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16), default="ready")
    status: Mapped[str] = mapped_column(String(16), default="pending")
    hold_reason: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[int] = mapped_column(default=0)
    progress_estimated: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    loss_history: Mapped[list[Any]] = mapped_column(default=list)
    """`[step, loss]` pairs read from the trainer's log, thinned to a bounded number."""
    output_version: Mapped[str | None] = mapped_column(String(300))
    output_artifact_url: Mapped[str | None] = mapped_column(Text)
    """The provider's weights URL, word for word."""
    asked_by: Mapped[str] = mapped_column(String(128), default="sensor")
    estimated_cost: Mapped[float | None]
    cost: Mapped[float | None]
    """US dollars; `cost` is computed from the provider's measured seconds once it has ended."""
    predict_seconds: Mapped[float | None]
    not_before: Mapped[datetime | None]
    """Nothing is sent earlier than this (a provider throttled us)."""
    post_started_at: Mapped[datetime | None]
    """Committed before the creation request leaves; while `training_id` is empty the outcome is unknown."""
    cancel_requested_at: Mapped[datetime | None]
    last_polled_at: Mapped[datetime | None]
    last_progress_at: Mapped[datetime | None]
    poll_failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    finalise_attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_until: Mapped[datetime | None]
    state_changed_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    succeeded_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    zip_deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(
            "state IN ('ready', 'packed', 'intent', 'submitted', 'running', 'succeeded', 'finalised', "
            "'failed', 'canceled', 'aborted', 'lost', 'held')",
            name="state",
        ),
        CheckConstraint("progress BETWEEN 0 AND 100", name="progress_percent"),
        UniqueConstraint("model_id", "attempt"),
        Index(
            "uq_training_runs_provider_job",
            "provider",
            "training_id",
            unique=True,
            sqlite_where=text("training_id IS NOT NULL"),
            postgresql_where=text("training_id IS NOT NULL"),
        ),
        Index(
            "uq_training_runs_one_open",
            "model_id",
            unique=True,
            sqlite_where=text(_OPEN),
            postgresql_where=text(_OPEN),
        ),
        Index("ix_training_runs_following", "provider", "state", "last_polled_at"),
    )
