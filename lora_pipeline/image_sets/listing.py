"""A model's current image set for people and programs: every file, its verdict, and what was found."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, UserModel
from lora_pipeline.image_sets.set_rows import draft_of, latest_ready


def current_set(session: Session, model: UserModel) -> tuple[ImageSet | None, list[dict[str, Any]]]:
    """The set that is still being filled, else the newest frozen one (None before there is any), and its files."""
    image_set = draft_of(session, model) or latest_ready(session, model)
    if image_set is None:
        return None, []
    rows = session.execute(
        select(ImageSetMember, Image)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(ImageSetMember.image_set_id == image_set.id)
        .order_by(ImageSetMember.source_name, ImageSetMember.id)
    )
    return image_set, [
        {
            "name": member.source_name,
            "sha256": image.sha256,
            "verdict": member.verdict,
            "chosen_by_hand": member.chosen_by is not None,
            "width": image.width,
            "height": image.height,
            "caption": member.caption,
            "findings": member.findings,
        }
        for member, image in rows
    ]
