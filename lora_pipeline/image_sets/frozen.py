"""What a frozen set holds, for whoever packs or shows it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.manifest import name_in_zip


@dataclass(frozen=True)
class FrozenMember:
    """One image of a frozen set. `name` is its name in the ZIP, `sha256` that of the normalised bytes.

    `caption` is what a person wrote; whether the trigger word stands in it is for the archive to see to.
    """

    name: str
    normalised_key: str
    size: int
    crc32: int
    sha256: str
    caption: str | None


def frozen_members(session: Session, image_set_id: int) -> list[FrozenMember]:
    """The images of a frozen set in their order. Raises IntakeError for a set that is still a draft."""
    image_set = session.get(ImageSet, image_set_id)
    if image_set is None or image_set.state != "ready":
        state = "is still a draft" if image_set else "does not exist"
        raise IntakeError(f"image set {image_set_id} {state}. Freeze the model's set first")
    rows = session.execute(
        select(ImageSetMember, Image)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(ImageSetMember.image_set_id == image_set_id, ImageSetMember.position.is_not(None))
        .order_by(ImageSetMember.position)
    )
    return [_frozen(member, image) for member, image in rows]


def _frozen(member: ImageSetMember, image: Image) -> FrozenMember:
    assert member.position is not None
    assert image.normalised_key is not None
    assert image.normalised_size is not None
    assert image.normalised_crc32 is not None
    assert image.normalised_sha256 is not None
    return FrozenMember(
        name=name_in_zip(member.position),
        normalised_key=image.normalised_key,
        size=image.normalised_size,
        crc32=image.normalised_crc32,
        sha256=image.normalised_sha256,
        caption=member.caption,
    )
