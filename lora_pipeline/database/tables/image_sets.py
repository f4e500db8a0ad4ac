"""Images by content, and the sets of them that trainings are made from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lora_pipeline.database.tables.base import Base, JsonObject, RowId


class ImageSet(Base):
    """The photographs of one training: `draft` while they arrive, `ready` once frozen.

    A frozen set never changes; later uploads open a new draft that starts with its included images.
    """

    __tablename__ = "image_sets"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    model_id: Mapped[int] = mapped_column(RowId, ForeignKey("user_models.id"), index=True)
    external_id: Mapped[str | None] = mapped_column(String(128), index=True)
    """Another system's name for this set, such as a selectionSetId."""
    state: Mapped[str] = mapped_column(String(16), default="draft")
    digest: Mapped[str | None] = mapped_column(String(64), index=True)
    """SHA-256 over the manifest: the same photographs, captions and trigger give the same digest."""
    manifest_key: Mapped[str | None] = mapped_column(Text)
    contact_sheet_key: Mapped[str | None] = mapped_column(Text)
    image_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    usable_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    findings: Mapped[list[Any]] = mapped_column(default=list)
    """Findings about the whole set (those about one image stand on its member)."""
    consent: Mapped[JsonObject | None]
    last_image_at: Mapped[datetime | None]
    asked_for_at: Mapped[datetime | None]
    """Somebody asked for a training of this set, which makes it ready without a quiet time."""
    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_until: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("state IN ('draft', 'ready')", name="state"),
        # Uploads from two processes must meet in one draft.
        Index(
            "uq_image_sets_one_draft",
            "model_id",
            unique=True,
            sqlite_where=text("state = 'draft'"),
            postgresql_where=text("state = 'draft'"),
        ),
    )


class Image(Base):
    """One original photograph of one user, by its SHA-256: kept immutable, stored once."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    user_id: Mapped[str] = mapped_column(String(64), ForeignKey("users.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    object_key: Mapped[str] = mapped_column(Text)
    size: Mapped[int]
    format: Mapped[str | None] = mapped_column(String(16))
    """What the bytes are (`JPEG`, `HEIF`, …), whatever the name says; None where they are no image."""
    width: Mapped[int | None]
    height: Mapped[int | None]
    captured_on: Mapped[str | None] = mapped_column(String(10))
    """The EXIF capture day (`YYYY-MM-DD`), all that is kept of the metadata."""
    phash: Mapped[str | None] = mapped_column(String(16))
    phash_mirror: Mapped[str | None] = mapped_column(String(16))
    sharpness: Mapped[float | None]
    findings: Mapped[list[Any]] = mapped_column(default=list)
    """Findings about the image alone, as inspected once."""
    normalised_key: Mapped[str | None] = mapped_column(Text)
    normalised_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    normalised_crc32: Mapped[int | None] = mapped_column(RowId)
    normalised_size: Mapped[int | None]
    deleted_at: Mapped[datetime | None]
    """When its files were deleted because they were due. The hashes stay, and the same photograph may come again."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("user_id", "sha256"), Index(None, "sha256"))


class ImageSetMember(Base):
    """One file's place in one set, with what became of it."""

    __tablename__ = "image_set_members"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    image_set_id: Mapped[int] = mapped_column(RowId, ForeignKey("image_sets.id", ondelete="CASCADE"))
    image_id: Mapped[int] = mapped_column(RowId, ForeignKey("images.id"), index=True)
    source_name: Mapped[str] = mapped_column(Text)
    position: Mapped[int | None]
    """Number in the ZIP (`000.jpg`), set when the set is frozen; None for an excluded image."""
    verdict: Mapped[str] = mapped_column(String(16), default="pending")
    """`pending`, `included` or `excluded`."""
    chosen_by: Mapped[str | None] = mapped_column(String(128))
    """Who included or excluded it against the checks; None where the checks decided."""
    findings: Mapped[list[Any]] = mapped_column(default=list)
    caption: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("image_set_id", "source_name", "image_id"),
        CheckConstraint("verdict IN ('pending', 'included', 'excluded')", name="verdict"),
    )
