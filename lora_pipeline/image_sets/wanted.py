"""Training on exactly the images that somebody named: the draft keeps those and no others, and is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TypeVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, Image, ImageSetMember, UserModel
from lora_pipeline.image_sets.drafts import open_draft
from lora_pipeline.image_sets.models import find_model, lock_user
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.set_rows import assess_rows, write_assessment

Found = TypeVar("Found")


def ask_for_exactly(
    database: Database,
    model_key: str,
    sha256s: Collection[str],
    *,
    actor: str,
    profile: ImageProfile,
    now: datetime,
    unless: Callable[[Session, UserModel], Found | None],
) -> int | Found:
    """Take everything else out of the model's draft and make it ready to train; the draft's id.

    What `unless` finds while the user's row is held is given back instead, and nothing is changed: of two that
    ask at the same moment, the second sees what the first has asked for. One transaction, so that no sensor can start
    what is still being put together. What somebody took out by hand stays out. The images must have been taken
    in. Raises IntakeError.
    """
    with database.begin() as session:
        model = find_model(session, model_key)
        lock_user(session, model.user_id)
        found = unless(session, model)
        if found is not None:
            return found
        draft = open_draft(session, model, now)
        wanted = select(Image.id).where(Image.user_id == model.user_id, Image.sha256.in_(sha256s))
        members = ImageSetMember.image_set_id == draft.id
        session.execute(delete(ImageSetMember).where(members, ImageSetMember.image_id.not_in(wanted)))
        session.flush()
        write_assessment(assess_rows(session, model, draft, profile), now)
        draft.asked_for_at = draft.updated_at = now
        session.add(
            AuditEntry(
                at=now,
                actor=actor,
                action="ask for training",
                subject=model.model_key,
                details={"image_set": draft.id, "images": len(sha256s)},
            )
        )
        return draft.id
