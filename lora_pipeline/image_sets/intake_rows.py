"""The rows of an intake: a group of examined files in one transaction with the draft's new assessment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, SelfieUpload, UserModel
from lora_pipeline.image_sets.drafts import open_draft
from lora_pipeline.image_sets.examining import Examined
from lora_pipeline.image_sets.models import find_model, lock_user
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import SetAssessment
from lora_pipeline.image_sets.set_rows import (
    AssessedSet,
    assess_rows,
    draft_of,
    latest_ready,
    write_assessment,
)
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.objects.store import ObjectStore

KNOWN = "Known already; nothing changed"


@dataclass(frozen=True)
class Failed:
    """A file that was not taken in. `again` says that the next intake tries it once more."""

    source: ImageSource
    message: str
    again: bool


def write_group(
    database: Database,
    store: ObjectStore,
    model_key: str,
    group: Sequence[Examined | Failed],
    profile: ImageProfile,
    now: datetime,
) -> tuple[int | None, SetAssessment | None]:
    """Store what became of some files; the draft's id and its assessment, None where there is no draft."""
    with database.begin() as session:
        model = find_model(session, model_key)
        lock_user(session, model.user_id)
        uploads = _uploads(session, model, group, now)
        examined = [result for result in group if isinstance(result, Examined)]
        images = images_of(session, model.user_id, examined, now)
        _drop_replaced(session, model, examined, images, now)
        draft = draft_of(session, model)
        for result in examined:
            image = images[result.sha256]
            if draft is None and _stands_in_latest(session, model, result, image):
                continue
            draft = draft or open_draft(session, model, now)
            _add_member(session, draft, result, image, now)
        session.flush()
        assessed = assess_rows(session, model, draft, profile) if draft is not None else None
        if assessed is not None:
            write_assessment(assessed, now)
        for upload, outcome in zip(uploads, group, strict=True):
            _describe(upload, outcome, images, assessed, store, now)
        return (draft.id, assessed.assessment) if draft and assessed else (None, None)


def _uploads(
    session: Session, model: UserModel, group: Sequence[Examined | Failed], now: datetime
) -> list[SelfieUpload]:
    """One row for each file, in the group's order: those of an earlier attempt, or new ones."""
    addresses = [result.source.address for result in group]
    rows = session.scalars(
        select(SelfieUpload).where(
            SelfieUpload.model_id == model.id, SelfieUpload.original_url.in_(addresses)
        )
    )
    found = {(row.original_url, row.source_fingerprint): row for row in rows}
    for result in group:
        source = result.source
        if (source.address, source.fingerprint) in found:
            continue
        upload = SelfieUpload(
            user_id=model.user_id,
            model_id=model.id,
            filename=source.name,
            original_url=source.address,
            source_fingerprint=source.fingerprint,
            created_at=now,
            updated_at=now,
        )
        session.add(upload)
        found[source.address, source.fingerprint] = upload
    return [found[result.source.address, result.source.fingerprint] for result in group]


def images_of(
    session: Session, user_id: str, examined: Sequence[Examined], now: datetime
) -> dict[str, Image]:
    """The user's image rows of these files by SHA-256, made where the content is new. The caller holds the user."""
    hashes = {result.sha256 for result in examined}
    rows = session.scalars(select(Image).where(Image.user_id == user_id, Image.sha256.in_(hashes)))
    images = {row.sha256: row for row in rows}
    for result in examined:
        if result.sha256 not in images:
            image = images[result.sha256] = Image(user_id=user_id, sha256=result.sha256, created_at=now)
            _inspected(image, result)
            session.add(image)
        elif images[result.sha256].deleted_at is not None:
            # It was due, and somebody sent it again: its time begins anew.
            image = images[result.sha256]
            image.deleted_at, image.created_at = None, now
            _inspected(image, result)
    session.flush()
    return images


def _inspected(image: Image, result: Examined) -> None:
    """Store with the image what looking at it brought."""
    record = result.record
    assert record is not None, "content without files has been inspected"
    normalised = record.normalised
    image.object_key, image.size = result.original_key, result.size
    image.format, image.width, image.height = record.format, record.width, record.height
    image.captured_on = record.captured_on
    image.phash, image.phash_mirror, image.sharpness = record.phash, record.phash_mirror, record.sharpness
    image.findings = [finding.to_dict() for finding in record.findings]
    image.normalised_key = normalised.key if normalised else None
    image.normalised_sha256 = normalised.sha256 if normalised else None
    image.normalised_crc32 = normalised.crc32 if normalised else None
    image.normalised_size = normalised.size if normalised else None


def _drop_replaced(
    session: Session,
    model: UserModel,
    examined: Sequence[Examined],
    images: dict[str, Image],
    now: datetime,
) -> None:
    """Take out of the draft what another file has replaced at its very place (a copy cut short, a better version).

    The old original is kept; a frozen set keeps it too.
    """
    new = {result.source.address: images[result.sha256].id for result in examined}
    earlier = session.execute(
        select(SelfieUpload.original_url, SelfieUpload.filename, SelfieUpload.image_id).where(
            SelfieUpload.model_id == model.id,
            SelfieUpload.original_url.in_(new),
            SelfieUpload.image_id.is_not(None),
        )
    ).all()
    gone = [(name, image_id) for address, name, image_id in earlier if image_id != new[address]]
    if not gone:
        return
    draft = open_draft(session, model, now)
    for name, image_id in gone:
        session.execute(
            delete(ImageSetMember).where(
                ImageSetMember.image_set_id == draft.id,
                ImageSetMember.source_name == name,
                ImageSetMember.image_id == image_id,
            )
        )


def _stands_in_latest(session: Session, model: UserModel, result: Examined, image: Image) -> bool:
    """Whether the newest frozen set knows this file under this name and caption, so that nothing is new."""
    latest = latest_ready(session, model)
    if latest is None:
        return False
    member = _member(session, latest, result, image)
    return member is not None and result.caption in (None, member.caption)


def _add_member(session: Session, draft: ImageSet, result: Examined, image: Image, now: datetime) -> None:
    arrived = min(result.source.arrived_at, now)
    draft.last_image_at = max(draft.last_image_at or arrived, arrived)
    member = _member(session, draft, result, image)
    if member is None:
        member = ImageSetMember(
            image_set_id=draft.id,
            image_id=image.id,
            source_name=result.source.name,
            findings=[],
            created_at=now,
        )
        session.add(member)
    if result.caption is not None:
        member.caption = result.caption
    session.flush()


def _member(session: Session, image_set: ImageSet, result: Examined, image: Image) -> ImageSetMember | None:
    return session.scalars(
        select(ImageSetMember).where(
            ImageSetMember.image_set_id == image_set.id,
            ImageSetMember.source_name == result.source.name,
            ImageSetMember.image_id == image.id,
        )
    ).one_or_none()


def _describe(
    upload: SelfieUpload,
    result: Examined | Failed,
    images: dict[str, Image],
    assessed: AssessedSet | None,
    store: ObjectStore,
    now: datetime,
) -> None:
    upload.updated_at = now
    if isinstance(result, Failed):
        upload.processing_status = "pending" if result.again else "failed"
        upload.ai_model_output = result.message
        return
    image = images[result.sha256]
    upload.image_id = image.id
    upload.processed_url = store.address(image.object_key)
    upload.processing_status = "completed" if image.normalised_key else "failed"
    upload.ai_model_output = _said(result, image, assessed)


def _said(result: Examined, image: Image, assessed: AssessedSet | None) -> str:
    if assessed is None:
        return KNOWN
    for member, said in zip(assessed.members, assessed.assessment.members, strict=True):
        if member.image_id == image.id and member.source_name == result.source.name:
            return said.reason
    return KNOWN
