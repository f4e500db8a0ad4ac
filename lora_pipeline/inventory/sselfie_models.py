"""The users and models of the selfie product, as ours: one model a user, whatever the number of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.identity import IdentityError, parse_model_key
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.sselfie_tables import Row
from lora_pipeline.inventory.sselfie_verdicts import JudgedModel

LONGEST_ID = 64
"""Of a user's id."""
_LONGEST_WORD = 64
_LONGEST_JOB = 128


@dataclass(frozen=True, slots=True)
class UserRows:
    """Everything that the older tables have of one user."""

    user_id: str
    user: Row | None
    models: Sequence[Row]
    runs: Sequence[Row]
    weights: Sequence[Row]


def add_user(session: Session, rows: UserRows, now: datetime) -> bool:
    """The user, without a model. Whether they are new."""
    if session.get(User, rows.user_id) is not None:
        return False
    session.add(User(id=rows.user_id, email=_email(rows.user), created_at=now, updated_at=now))
    return True


def ensure_users_model(
    session: Session, rows: UserRows, chosen: JudgedModel, now: datetime
) -> tuple[UserModel, bool]:
    """The user's model, locked, and whether it is new: then it is as the chosen row says."""
    key = _model_key(rows.user_id)
    known = session.scalars(select(UserModel).where(UserModel.model_key == key)).first()
    if known is not None:
        session.refresh(known, with_for_update=True)
        return known, False
    described = ModelDescription(
        user_id=rows.user_id,
        email=_email(rows.user),
        model_name=(chosen.name or key)[:200],
        gender=chosen.gender[:16] if chosen.gender else None,
        is_test=chosen.is_test,
    )
    model = ensure_model(session, key, described, now)
    session.refresh(model, with_for_update=True)
    word = chosen.trigger_word
    if word is not None and len(word) <= _LONGEST_WORD and not _taken(session, word, model.id):
        model.trigger_word = word
    if chosen.version is not None and chosen.version.model is not None:
        model.replicate_model_id = str(chosen.version.model)
    model.training_id = chosen.training_id[:_LONGEST_JOB] if chosen.training_id else None
    model.training_status = chosen.status if chosen.status in ("failed", "canceled") else "pending"
    return model, True


def _email(row: Row | None) -> str | None:
    email = (row or {}).get("email")
    return str(email)[:320] if email else None


def _model_key(user_id: str) -> str:
    """`user-<id>`; a digest where the id is an e-mail address or has other characters."""
    plain = user_id.lower().removeprefix("user-")
    try:
        return parse_model_key(f"user-{plain}")
    except IdentityError:
        return f"user-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}"


def _taken(session: Session, word: str, model_id: int) -> bool:
    query = select(UserModel.id).where(UserModel.trigger_word == word, UserModel.id != model_id)
    return session.scalars(query).first() is not None
