"""Between the rows of image sets and the records that the rules work on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, TrainingRun, UserModel
from lora_pipeline.image_sets.findings import Finding
from lora_pipeline.image_sets.manifest import set_digest
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import (
    ImageRecord,
    MemberAssessment,
    MemberRecord,
    NormalisedFile,
    SetAssessment,
    Verdict,
)
from lora_pipeline.image_sets.set_checks import SetContext, assess
from lora_pipeline.trainings.lifecycle import TrainingState


@dataclass(frozen=True)
class AssessedSet:
    """A set's rows with what the checks say about them, in the order of the assessment's members."""

    image_set: ImageSet
    members: tuple[ImageSetMember, ...]
    assessment: SetAssessment
    digest: str


def draft_of(session: Session, model: UserModel) -> ImageSet | None:
    """The model's set that is still being filled."""
    return session.scalars(
        select(ImageSet).where(ImageSet.model_id == model.id, ImageSet.state == "draft")
    ).one_or_none()


def latest_ready(session: Session, model: UserModel) -> ImageSet | None:
    """The model's newest frozen set."""
    return session.scalars(
        select(ImageSet)
        .where(ImageSet.model_id == model.id, ImageSet.state == "ready")
        .order_by(ImageSet.id.desc())
        .limit(1)
    ).one_or_none()


def image_record(image: Image) -> ImageRecord:
    normalised = None
    if image.normalised_key is not None:
        assert image.normalised_sha256 is not None
        assert image.normalised_crc32 is not None
        assert image.normalised_size is not None
        normalised = NormalisedFile(
            image.normalised_key, image.normalised_sha256, image.normalised_crc32, image.normalised_size
        )
    return ImageRecord(
        sha256=image.sha256,
        format=image.format,
        width=image.width,
        height=image.height,
        captured_on=image.captured_on,
        phash=image.phash,
        phash_mirror=image.phash_mirror,
        sharpness=image.sharpness,
        findings=tuple(Finding.from_dict(finding) for finding in image.findings),
        normalised=normalised,
    )


def assess_rows(
    session: Session,
    model: UserModel,
    image_set: ImageSet,
    profile: ImageProfile,
    zip_limit_bytes: int | None = None,
) -> AssessedSet:
    """The checks on a set as it stands in the database; nothing is changed."""
    rows = session.execute(
        select(ImageSetMember, Image)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(ImageSetMember.image_set_id == image_set.id)
    ).all()
    # By identity of the record: two files of one content are equal records.
    members: dict[int, ImageSetMember] = {}
    records: list[MemberRecord] = []
    for member, image in rows:
        record = _member_record(member, image)
        members[id(record)] = member
        records.append(record)
    context = _context(session, model, profile, zip_limit_bytes)
    assessment = assess(records, context)
    ordered = tuple(members[id(assessed.member)] for assessed in assessment.members)
    return AssessedSet(
        image_set, ordered, assessment, set_digest(assessment.included, context.trigger_word or "")
    )


def write_assessment(assessed: AssessedSet, now: datetime) -> None:
    """Store verdicts, findings and counts with the set, which the readiness of a draft is read from."""
    for member, result in zip(assessed.members, assessed.assessment.members, strict=True):
        _write_member(member, result)
    image_set = assessed.image_set
    image_set.image_count = len(assessed.members)
    image_set.usable_count = len(assessed.assessment.included)
    image_set.findings = [finding.to_dict() for finding in assessed.assessment.findings]
    image_set.digest = assessed.digest
    image_set.updated_at = now


def trained_digest(session: Session, model: UserModel) -> str | None:
    """The digest of the set that the model's last training was made from, or is being made from now."""
    return session.scalars(
        select(ImageSet.digest)
        .join(TrainingRun, TrainingRun.image_set_id == ImageSet.id)
        .where(TrainingRun.model_id == model.id, TrainingRun.state.not_in(_WITHOUT_RESULT))
        .order_by(TrainingRun.attempt.desc())
        .limit(1)
    ).one_or_none()


_WITHOUT_RESULT = (TrainingState.FAILED, TrainingState.CANCELED, TrainingState.ABORTED)


def _member_record(member: ImageSetMember, image: Image) -> MemberRecord:
    choice = cast(Verdict, member.verdict) if member.chosen_by and member.verdict != "pending" else None
    return MemberRecord(member.source_name, image_record(image), member.caption, choice)


def _write_member(member: ImageSetMember, result: MemberAssessment) -> None:
    member.verdict = result.verdict
    member.findings = [finding.to_dict() for finding in result.findings]
    if result.member.choice == "included" and not result.included:
        # Overruled since, for example by the same photograph under another name. Kept, it would read as the
        # person's wish to exclude.
        member.chosen_by = None


def _context(
    session: Session, model: UserModel, profile: ImageProfile, zip_limit_bytes: int | None
) -> SetContext:
    previous = session.execute(
        select(TrainingRun.trigger_word, ImageSet.usable_count)
        .outerjoin(ImageSet, ImageSet.id == TrainingRun.image_set_id)
        .where(TrainingRun.model_id == model.id, TrainingRun.state == TrainingState.FINALISED)
        .order_by(TrainingRun.attempt.desc())
        .limit(1)
    ).one_or_none()
    return SetContext(
        profile=profile,
        trigger_word=model.trigger_word,
        trigger_used_by=session.scalars(
            select(UserModel.model_key)
            .where(func.lower(UserModel.trigger_word) == model.trigger_word.lower(), UserModel.id != model.id)
            .limit(1)
        ).one_or_none(),
        trained_trigger=previous[0] if previous else None,
        previous_count=previous[1] if previous else None,
        zip_limit_bytes=zip_limit_bytes,
    )
