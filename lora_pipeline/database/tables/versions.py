"""The registry: artifacts by content, where they lie, versions, their other names, and what was live when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId


class Artifact(Base):
    """A LoRA by its content: the key is a hash of the tensors, never of a name, a size or an ETag."""

    __tablename__ = "artifacts"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    content_key: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the tensors."""
    file_sha256: Mapped[str] = mapped_column(String(64), index=True)
    autov2: Mapped[str] = mapped_column(String(10))
    autov3: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(RowId)
    tensor_count: Mapped[int]
    rank: Mapped[int | None]
    header_metadata: Mapped[JsonObject] = mapped_column(default=dict)
    created_at: Mapped[datetime]


class ArtifactLocation(Base):
    """A place where an artifact lies or lay. Empty strings, not NULL, where a bucket keeps no versions."""

    __tablename__ = "artifact_locations"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    artifact_id: Mapped[int] = mapped_column(RowId, ForeignKey("artifacts.id"), index=True)
    namespace: Mapped[str] = mapped_column(String(200))
    bucket: Mapped[str] = mapped_column(String(255))
    key: Mapped[str] = mapped_column(Text)
    object_version: Mapped[str] = mapped_column(String(255), default="")
    etag: Mapped[str] = mapped_column(String(128), default="")
    size: Mapped[int] = mapped_column(RowId)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    overwritten_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("namespace", "bucket", "key", "object_version", "artifact_id"),
        Index("ix_artifact_locations_object", "namespace", "bucket", "key"),
    )


class LoraWeights(Base):
    """The seeds' view of an artifact and where it is archived, written when a version is registered."""

    __tablename__ = "lora_weights"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64), ForeignKey("users.id"), index=True)
    training_run_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("training_runs.id"), unique=True)
    artifact_id: Mapped[int] = mapped_column(RowId, ForeignKey("artifacts.id"), index=True)
    trigger_word: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str] = mapped_column(String(100))
    s3_bucket: Mapped[str] = mapped_column(String(255))
    """The bucket, or an empty string where the store is a local folder."""
    s3_key: Mapped[str] = mapped_column(Text)
    file_size: Mapped[int] = mapped_column(RowId)
    checksum: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the file."""
    rank: Mapped[int | None]
    network_type: Mapped[str] = mapped_column(String(16), default="lora")
    status: Mapped[str] = mapped_column(String(16), default="available")
    default_scales: Mapped[JsonObject] = mapped_column(default=dict)
    metadata_: Mapped[JsonObject] = mapped_column("metadata", default=dict)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ModelVersion(Base):
    """One registered version of a model. A number is given once and never reused."""

    __tablename__ = "model_versions"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id"))
    number: Mapped[int]
    artifact_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("artifacts.id"), index=True)
    training_run_id: Mapped[int | None] = mapped_column(RowId, ForeignKey("training_runs.id"))
    provider: Mapped[str] = mapped_column(String(16))
    provider_version: Mapped[str | None] = mapped_column(String(300))
    """`owner/name:64hex`; None for providers that keep no versions."""
    weights_url: Mapped[str | None] = mapped_column(Text)
    """Our archived address, else the provider's own URL word for word."""
    weights_state: Mapped[str] = mapped_column(String(16), default="unverified")
    trigger_word: Mapped[str] = mapped_column(String(64))
    lora_scale: Mapped[float] = mapped_column(default=1.0)
    parameters: Mapped[JsonObject] = mapped_column(default=dict)
    image_count: Mapped[int | None]
    is_good: Mapped[bool | None]
    """A reviewer's verdict; None where nobody gave one."""
    last_synced_at: Mapped[datetime | None]
    """When a listing of the bucket last brought a file of it: ours, or the system's that it was imported from."""
    provenance: Mapped[JsonObject] = mapped_column(default=dict)
    """Field name → where its value came from."""
    simulated: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    trained_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        CheckConstraint("weights_state IN ('unverified', 'verified', 'missing')", name="weights_state"),
        Index(
            "uq_model_versions_training_run",
            "training_run_id",
            unique=True,
            sqlite_where=text("training_run_id IS NOT NULL"),
            postgresql_where=text("training_run_id IS NOT NULL"),
        ),
        Index(
            "uq_model_versions_provider_version",
            "provider_version",
            unique=True,
            sqlite_where=text("provider_version IS NOT NULL"),
            postgresql_where=text("provider_version IS NOT NULL"),
        ),
    )


class VersionAlias(Base):
    """Any other id that means a version: a job id, an object, a legacy entry id, a provider version."""

    __tablename__ = "version_aliases"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(32))
    alias: Mapped[str] = mapped_column(String(1100))
    version_id: Mapped[int] = mapped_column(RowId, ForeignKey("model_versions.id"), index=True)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("kind", "alias"),)


class VersionRedirect(Base):
    """A merged version's id and where it leads, always in one hop."""

    __tablename__ = "version_redirects"

    old_version_id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    version_id: Mapped[int] = mapped_column(RowId, ForeignKey("model_versions.id"), index=True)
    created_at: Mapped[datetime]


class Activation(Base):
    """Which version a model served, from when to when, by whom and why. One open row a model."""

    __tablename__ = "activations"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id"), index=True)
    version_id: Mapped[int] = mapped_column(RowId, ForeignKey("model_versions.id"), index=True)
    active_from: Mapped[datetime]
    active_to: Mapped[datetime | None]
    actor: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    pinned: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    restores_id: Mapped[int | None] = mapped_column(RowId)
    """The earlier activation that a rollback went back to: the next rollback goes on from there."""

    __table_args__ = (
        Index(
            "uq_activations_one_open",
            "model_id",
            unique=True,
            sqlite_where=text("active_to IS NULL"),
            postgresql_where=text("active_to IS NULL"),
        ),
    )


class ResolveCheck(Base):
    """When a served model was last held against the provider because an application asked for its version.

    Once a deployment: `asked_in` and `asked_at` claim the check, `answered_in` and `answered_at` settle it.
    """

    __tablename__ = "resolve_checks"

    model_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("user_models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    asked_in: Mapped[str] = mapped_column(String(128))
    asked_at: Mapped[datetime]
    answered_in: Mapped[str | None] = mapped_column(String(128))
    answered_at: Mapped[datetime | None]
    verdict: Mapped[str | None] = mapped_column(String(32))


class ReviewItem(Base):
    """Something a person must decide: strong ids in conflict, or a row that could not be trusted."""

    __tablename__ = "review_items"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(300))
    details: Mapped[JsonObject] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (UniqueConstraint("kind", "subject"),)


class MergePlan(Base):
    """A deduplication plan: made without side effects, reviewed, applied, undone."""

    __tablename__ = "merge_plans"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    scope: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), default="planned")
    groups: Mapped[list[Any]] = mapped_column(default=list)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Digest of what the plan was made from: apply refuses a plan whose ground has moved."""
    created_at: Mapped[datetime]
    applied_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('planned', 'applying', 'applied', 'undoing', 'undone')", name="state"),
    )


class MergeJournal(Base):
    """What applying a plan changed, written before it is changed: enough to restore every byte."""

    __tablename__ = "merge_journal"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    plan_id: Mapped[str] = mapped_column(String(36), ForeignKey("merge_plans.id"), index=True)
    sequence: Mapped[int]
    target: Mapped[str] = mapped_column(Text)
    before: Mapped[JsonObject]
    after: Mapped[JsonObject]
    done_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("plan_id", "sequence"),)
