"""What a person should know before a training is paid: the set's warnings, and where it is weaker than the last one.

Whether there are fewer images than before is the set checks' to find; here it is only told. Nothing here blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ImageSet, ImageSetMember, TrainingRun
from lora_pipeline.image_sets.findings import Finding, Severity, with_severity
from lora_pipeline.trainings.lifecycle import TrainingState

_WEAKER_BELOW = 0.7
"""The same share under which a set counts as having fewer images than before."""


@dataclass(frozen=True)
class SetQuality:
    """How many images of a set go into training, and how many of them no check warned about."""

    images: int
    flawless: int


def training_warnings(session: Session, model_id: int, image_set_id: int) -> tuple[str, ...]:
    """What to say before this set is trained, most important first."""
    image_set = session.get_one(ImageSet, image_set_id)
    found = with_severity(map(Finding.from_dict, image_set.findings), Severity.WARN)
    previous = session.scalars(
        select(TrainingRun.image_set_id)
        .where(
            TrainingRun.model_id == model_id,
            TrainingRun.state == TrainingState.FINALISED,
            TrainingRun.image_set_id.is_not(None),
            TrainingRun.image_set_id != image_set_id,
        )
        .order_by(TrainingRun.attempt.desc())
        .limit(1)
    ).one_or_none()
    weaker = None
    if previous is not None:
        weaker = weaker_than_before(_quality(session, previous), _quality(session, image_set_id))
    return (*([weaker] if weaker else []), *map(str, found))


def weaker_than_before(previous: SetQuality, present: SetQuality) -> str | None:
    """The warning where as many images as before go in, and too few of them are as good as those were."""
    fewer = present.images < _WEAKER_BELOW * previous.images
    if fewer or present.flawless >= _WEAKER_BELOW * previous.flawless:
        return None
    return (
        f"{present.flawless} of {present.images} images are without a warning, the previous version had "
        f"{previous.flawless} of {previous.images}. Look at the contact sheet, or expect a weaker version"
    )


def _quality(session: Session, image_set_id: int) -> SetQuality:
    findings = session.scalars(
        select(ImageSetMember.findings).where(
            ImageSetMember.image_set_id == image_set_id, ImageSetMember.verdict == "included"
        )
    ).all()
    warned = sum(any(finding["severity"] == Severity.WARN for finding in one) for one in findings)
    return SetQuality(len(findings), len(findings) - warned)
