"""What a caller reaches: their own models, or all of them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import TrainingRun, User, UserModel
from lora_pipeline.trainings.listing import TrainingNotFound
from lora_pipeline.versions.lookup import ModelNotFound, find_model


@dataclass(frozen=True)
class Caller:
    """Who asks. `actor` goes into the audit log; it is a key's name, never a person's."""

    actor: str
    user_id: str | None
    """Whose models they reach; for an administrator, whom a request is for where it does not say."""
    is_admin: bool


class NotAllowed(Exception):
    """The caller may not do this at all; the message says who may."""


def reachable_model(session: Session, caller: Caller, text: str) -> UserModel:
    """The model that `text` means to this caller. Raises ModelNotFound.

    A user names their models by key, and what belongs to somebody else does not exist for them: the same words
    for both, and no suggestions. An administrator may also write a user id, an e-mail or the provider's name.
    """
    if caller.is_admin:
        return find_model(session, text)
    question = select(UserModel).where(UserModel.user_id == caller.user_id, UserModel.model_key == text)
    model = session.scalars(question).one_or_none()
    if model is None:
        raise ModelNotFound(
            f"you have no model {text!r}. Give its modelId, as the start of its training answered"
        )
    return model


def active_model(session: Session, caller: Caller) -> UserModel:
    """The model that the caller's user generates with. Raises ModelNotFound."""
    question = (
        select(UserModel).join(User, User.active_model_id == UserModel.id).where(User.id == caller.user_id)
    )
    model = session.scalars(question).one_or_none()
    if model is None:
        raise ModelNotFound("got no modelId, and your key's user has no active model. Give a modelId")
    return model


def run_of(session: Session, model: UserModel, run_id: int | None = None) -> TrainingRun:
    """A training run of the model: the one of this number, or its newest. Raises TrainingNotFound."""
    question = select(TrainingRun).where(TrainingRun.model_id == model.id)
    if run_id is not None:
        question = question.where(TrainingRun.id == run_id)
    run = session.scalars(question.order_by(TrainingRun.attempt.desc()).limit(1)).one_or_none()
    if run is None:
        which = f"training run {run_id}" if run_id is not None else "training"
        raise TrainingNotFound(f"{model.model_key} has no {which}")
    return run


def user_of(caller: Caller, asked_for: str | None) -> str:
    """The user that a request is for. Raises NotAllowed, and ValueError where nobody was named."""
    if asked_for is None or asked_for == caller.user_id:
        if caller.user_id is None:
            raise ValueError(
                "got no userId; an administrator's key has to say whose images or model it is about"
            )
        return caller.user_id
    if not caller.is_admin:
        raise NotAllowed(
            "this key reaches its own user only; leave userId out, or use an administrator's key"
        )
    return asked_for
