"""The facts about a frozen image set that are shown wherever it is shown.

Photographs are told apart by their number and hash: file names can name people, and what Dagster stores
cannot be erased.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, UserModel


def image_set_facts(session: Session, image_set: ImageSet) -> dict[str, Any]:
    """What a set holds and what was said about each image, as JSON without any name."""
    model = session.get_one(UserModel, image_set.model_id)
    rows = session.execute(
        select(ImageSetMember, Image)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(ImageSetMember.image_set_id == image_set.id)
        .order_by(ImageSetMember.position.is_(None), ImageSetMember.position, ImageSetMember.id)
    ).all()
    return {
        "image_set": image_set.id,
        "digest": image_set.digest,
        "trigger_word": model.trigger_word,
        "image_count": image_set.image_count,
        "usable_count": image_set.usable_count,
        "findings": [finding["message"] for finding in image_set.findings],
        "members": [_member(member, image) for member, image in rows],
    }


def _member(member: ImageSetMember, image: Image) -> dict[str, Any]:
    return {
        "number": "" if member.position is None else f"{member.position:03}",
        "sha256": image.sha256,
        "verdict": member.verdict,
        "size": f"{image.width}×{image.height}" if image.width else "",
        "findings": [_shown(finding) for finding in member.findings],
    }


def _shown(finding: dict[str, Any]) -> str:
    """The finding's code with what was measured. Its message may name another file."""
    words = str(finding["code"]).replace("_", " ")
    value, threshold = finding.get("value"), finding.get("threshold")
    if not isinstance(value, int | float):
        return words
    return f"{words}: {value:g}" + (f" (limit {threshold:g})" if isinstance(threshold, int | float) else "")
