"""Users, their models, and the uploads that models are trained from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, RowId


class User(Base):
    """A customer, or the house itself (`is_house`), which owns the art styles."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    email: Mapped[str | None] = mapped_column(String(320))
    is_house: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    active_model_id: Mapped[int | None] = mapped_column(
        RowId, ForeignKey("user_models.id", use_alter=True, ondelete="SET NULL")
    )
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (Index(None, "email"),)


class UserModel(Base):
    """One model: a person's or a style's line of LoRA versions, showing what is *served* now.

    `replicate_version_id` and `lora_weights_url` always belong together: both are written by activation
    and by nothing else. A retrain in progress lives in `training_runs` and never blanks them.
    """

    __tablename__ = "user_models"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64), ForeignKey("users.id"), index=True)
    model_key: Mapped[str] = mapped_column(String(100), unique=True)
    """Opaque, no e-mail: the Dagster partition key and what the command line takes."""
    model_name: Mapped[str] = mapped_column(String(200))
    model_type: Mapped[str] = mapped_column(String(16), default="person")
    """`person`, `object` or `style`; chooses the caption template and the provider's model name."""
    gender: Mapped[str | None] = mapped_column(String(16))
    trigger_word: Mapped[str] = mapped_column(String(64), unique=True)
    """Fixed for the model's life: retraining under another word breaks every prompt its user has saved."""
    training_id: Mapped[str | None] = mapped_column(String(128))
    """The provider's id of the latest training (never to be confused with a model or a version)."""
    replicate_model_id: Mapped[str | None] = mapped_column(String(200), index=True)
    """`owner/name` at the provider."""
    replicate_version_id: Mapped[str | None] = mapped_column(String(300))
    """`owner/name:64hex` of the served version."""
    lora_weights_url: Mapped[str | None] = mapped_column(Text)
    """Our archived address (`s3://…`, `file://…`), else the provider's own URL word for word."""
    lora_scale: Mapped[float] = mapped_column(default=1.0, server_default=text("1.0"))
    training_status: Mapped[str] = mapped_column(String(16), default="pending")
    training_progress: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    estimated_completion_time: Mapped[datetime | None]
    failure_reason: Mapped[str | None] = mapped_column(Text)
    is_test: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    started_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("training_progress BETWEEN 0 AND 100", name="progress_percent"),
        CheckConstraint("model_type IN ('person', 'object', 'style')", name="model_type"),
        CheckConstraint(
            "training_status IN ('pending', 'training', 'completed', 'failed', 'canceled')", name="status"
        ),
    )


class SelfieUpload(Base):
    """One arrival of one file, from an inbox folder, an object-store prefix or the HTTP API."""

    __tablename__ = "selfie_uploads"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64), ForeignKey("users.id"), index=True)
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id"), index=True)
    image_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("images.id"), index=True)
    filename: Mapped[str] = mapped_column(Text)
    original_url: Mapped[str] = mapped_column(Text)
    """Where it was found (`file://…`, `s3://…`); never a presigned URL."""
    source_fingerprint: Mapped[str] = mapped_column(String(200))
    """Size and change time (or ETag) at the source: an unchanged file is not read twice."""
    processed_url: Mapped[str | None] = mapped_column(Text)
    """Address of the kept original in our store."""
    processing_status: Mapped[str] = mapped_column(String(16), default="pending")
    """`pending`, `completed` or `failed`."""
    ai_model_output: Mapped[str | None] = mapped_column(Text)
    """What intake said about the file, for a person to read."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("model_id", "original_url", "source_fingerprint"),)
