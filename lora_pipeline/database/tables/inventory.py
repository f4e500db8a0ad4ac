"""What the buckets showed when they were last listed: places, and every LoRA file that was ever seen in them.

The artifact behind a file, and where it lies for everybody else, is in `versions`; here stands how far a listing
came, and what became of each file.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId

# S3 lists keys in the order of their UTF-8 bytes, and ranges of rows are held against pages of a listing. SQLite
# compares bytes anyway; PostgreSQL would follow the language of the database.
ObjectKey = Text().with_variant(Text(collation="C"), "postgresql")


class InventoryPlace(Base):
    """One listed prefix of a bucket, and how far the pass over it came."""

    __tablename__ = "inventory_places"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    namespace: Mapped[str] = mapped_column(String(200))
    bucket: Mapped[str] = mapped_column(String(255))
    prefix: Mapped[str] = mapped_column(Text)
    """Empty for the whole bucket, else with its closing slash."""
    marker: Mapped[str] = mapped_column(Text, default="")
    """Every key up to here has been dealt with in this pass; empty at its beginning."""
    pass_began_at: Mapped[datetime | None]
    """None between passes."""
    counts: Mapped[JsonObject] = mapped_column(default=dict)
    """Of the pass that is under way, else of the last one."""
    completed_at: Mapped[datetime | None]
    """When the last complete pass began: every file that is listed was there then or later."""

    __table_args__ = (UniqueConstraint("namespace", "bucket", "prefix"),)


class InventoryObject(Base):
    """One LoRA file as a listing showed it: these bytes (by version and ETag) under this key.

    A key that is overwritten gets another row. Rows are never removed.
    """

    __tablename__ = "inventory_objects"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    namespace: Mapped[str] = mapped_column(String(200))
    bucket: Mapped[str] = mapped_column(String(255))
    key: Mapped[str] = mapped_column(ObjectKey)
    object_version: Mapped[str] = mapped_column(String(255), default="")
    """Empty for S3's version "null" too: what was there before a bucket began to keep versions."""
    etag: Mapped[str] = mapped_column(String(128))
    size: Mapped[int] = mapped_column(RowId)
    modified: Mapped[datetime]
    listed: Mapped[bool]
    """Whether the bucket still shows it, be it as an older version."""
    overwritten_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it is in that state, for a person."""
    claims: Mapped[JsonObject] = mapped_column(default=dict)
    """What its user metadata says about the training that made it."""
    file_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of the file as it was read: the same tensors may lie in files of several hashes."""
    artifact_id: Mapped[int | None] = mapped_column(
        RowId, ForeignKey("artifacts.id", ondelete="SET NULL"), index=True
    )
    version_id: Mapped[int | None] = mapped_column(
        RowId, ForeignKey("model_versions.id", ondelete="SET NULL"), index=True
    )
    """The version it was attached to."""
    tries: Mapped[int] = mapped_column(default=0)
    """How often it could not be read: others come first."""
    first_seen: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    """When it was last read or thought over."""

    __table_args__ = (
        UniqueConstraint(
            "namespace", "bucket", "key", "object_version", "etag", "size", name="uq_inventory_objects_bytes"
        ),
        CheckConstraint(
            "state IN ('waiting', 'attached', 'expected', 'unregistered', 'doubtful', 'refused')",
            name="state",
        ),
        Index(
            "ix_inventory_objects_listed",
            "namespace",
            "bucket",
            "key",
            sqlite_where=text("listed = 1"),
            postgresql_where=text("listed"),
        ),
        Index("ix_inventory_objects_state", "state", "id"),
    )
