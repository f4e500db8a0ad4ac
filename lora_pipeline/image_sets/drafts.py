"""A model's draft: opened, changed by a person, asked to be trained. One draft a model; frozen sets never change."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, Image, ImageSet, ImageSetMember, UserModel
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.models import find_model, lock_user
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import SetAssessment, Verdict
from lora_pipeline.image_sets.set_checks import may_be_included
from lora_pipeline.image_sets.set_rows import assess_rows, draft_of, latest_ready, write_assessment

Choice = Literal["include", "exclude", "checks"]
_VERDICTS: dict[Choice, Verdict] = {"include": "included", "exclude": "excluded"}


def open_draft(session: Session, model: UserModel, now: datetime) -> ImageSet:
    """The model's draft, made where there is none. The caller holds the user's row.

    A new one starts with what the newest frozen set included, and with what a person had taken out of it, so that
    the same file sent again stays out.
    """
    draft = draft_of(session, model)
    if draft is not None:
        return draft
    draft = ImageSet(model_id=model.id, state="draft", findings=[], created_at=now, updated_at=now)
    session.add(draft)
    session.flush()
    previous = latest_ready(session, model)
    if previous is not None:
        draft.last_image_at = previous.last_image_at
        _carry_over(session, previous, draft, now)
    return draft


def set_choice(
    database: Database,
    model_key: str,
    name: str,
    *,
    choice: Choice,
    actor: str,
    profile: ImageProfile,
    now: datetime,
) -> SetAssessment:
    """`include` or `exclude` an image of the model's set by its file name, or leave it to the checks (`checks`).

    Raises IntakeError where there is no such image, or where it is none that could be included.
    """
    with database.begin() as session:
        model, draft, members = _members_named(session, model_key, name, now)
        for member in members:
            member.chosen_by = actor if choice in _VERDICTS else None
            member.verdict = _VERDICTS.get(choice, "pending")
        session.flush()
        assessed = assess_rows(session, model, draft, profile)
        if choice == "include":
            _require_included(assessed.assessment, name)
        write_assessment(assessed, now)
        session.add(
            _audit(now, actor, f"{choice} image", model, {"image_set": draft.id, "images": len(members)})
        )
        return assessed.assessment


def set_caption(
    database: Database,
    model_key: str,
    name: str,
    caption: str | None,
    *,
    actor: str,
    profile: ImageProfile,
    now: datetime,
) -> SetAssessment:
    """Write an image's caption, or take it away. Raises IntakeError where there is no such image."""
    with database.begin() as session:
        model, draft, members = _members_named(session, model_key, name, now)
        for member in members:
            member.caption = (caption or "").strip() or None
        session.flush()
        assessed = assess_rows(session, model, draft, profile)
        write_assessment(assessed, now)
        session.add(
            _audit(now, actor, "caption image", model, {"image_set": draft.id, "images": len(members)})
        )
        return assessed.assessment


def ask_for_training(database: Database, model_key: str, *, actor: str, now: datetime) -> int:
    """Make the model's set ready without waiting for more photographs or for quiet; the draft's id.

    What is wrong with it is said when it is frozen. Raises IntakeError where there is no such model.
    """
    with database.begin() as session:
        model = find_model(session, model_key)
        lock_user(session, model.user_id)
        draft = open_draft(session, model, now)
        draft.asked_for_at = draft.updated_at = now
        session.add(_audit(now, actor, "ask for training", model, {"image_set": draft.id}))
        return draft.id


def _carry_over(session: Session, previous: ImageSet, draft: ImageSet, now: datetime) -> None:
    kept = session.scalars(
        select(ImageSetMember)
        .join(Image, Image.id == ImageSetMember.image_id)
        .where(
            ImageSetMember.image_set_id == previous.id,
            Image.deleted_at.is_(None),
            or_(ImageSetMember.verdict == "included", ImageSetMember.chosen_by.is_not(None)),
        )
    ).all()
    session.add_all(
        ImageSetMember(
            image_set_id=draft.id,
            image_id=member.image_id,
            source_name=member.source_name,
            verdict=member.verdict,
            chosen_by=member.chosen_by,
            findings=list(member.findings),
            caption=member.caption,
            created_at=now,
        )
        for member in kept
    )
    draft.image_count = len(kept)
    draft.usable_count = sum(member.verdict == "included" for member in kept)
    if draft.usable_count == previous.usable_count:
        draft.digest, draft.findings = previous.digest, list(previous.findings)
    session.flush()


def _members_named(
    session: Session, model_key: str, name: str, now: datetime
) -> tuple[UserModel, ImageSet, list[ImageSetMember]]:
    model = find_model(session, model_key)
    lock_user(session, model.user_id)
    draft = open_draft(session, model, now)
    members = list(
        session.scalars(
            select(ImageSetMember).where(
                ImageSetMember.image_set_id == draft.id, ImageSetMember.source_name == name
            )
        )
    )
    if not members:
        raise IntakeError(
            f"the set of {model_key} has no image {name!r}. Give its file name as it was uploaded"
        )
    return model, draft, members


def _require_included(assessment: SetAssessment, name: str) -> None:
    for assessed in assessment.members:
        if assessed.member.name == name and not assessed.included and not may_be_included(assessed):
            raise IntakeError(f"{name} cannot be included: {assessed.reason}")


def _audit(now: datetime, actor: str, action: str, model: UserModel, details: dict[str, int]) -> AuditEntry:
    return AuditEntry(at=now, actor=actor, action=action, subject=model.model_key, details=details)
