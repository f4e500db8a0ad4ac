"""The model that photographs are for: found, or made from its description with a trigger word of its own."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.erasure.names import Erased, Name, erased
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.names import is_model_key
from lora_pipeline.trainings.triggers import trigger_base, trigger_word_for

HOUSE_USER = "house"
"""Who owns the styles."""

_USER_ID_LENGTH = 64
_ATTEMPTS = 20  # each lost one means that somebody else has just made a model of nearly the same name


class ModelDescription(BaseModel):
    """What `model.toml` may say about a model that does not exist yet. Everything has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    user_id: Annotated[str, Field(min_length=1, max_length=_USER_ID_LENGTH)] | None = None
    """Whose model it is: the model key itself where unset, the house user for a style."""
    email: Annotated[str, Field(max_length=320)] | None = None
    model_name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    model_type: Literal["person", "object", "style"] = "person"
    gender: Annotated[str, Field(max_length=16)] | None = None
    is_test: bool = False


def parse_description(text: str, where: str) -> ModelDescription:
    """Read a `model.toml`. Raises IntakeError naming `where`, the entry and what is expected."""
    try:
        return ModelDescription.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise IntakeError(
            f'{where} is not valid TOML: {error}. Write lines such as model_type = "style"'
        ) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(ModelDescription.model_fields)
        raise IntakeError(f"{where}: {faults}. Known entries are {known}") from error


def find_model(session: Session, model_key: str) -> UserModel:
    """The model; IntakeError where there is none."""
    model = session.scalars(select(UserModel).where(UserModel.model_key == model_key)).one_or_none()
    if model is None:
        raise IntakeError(
            f"there is no model {model_key!r}. Put its photographs into a folder of that name in the inbox, "
            f"or run: lora-pipeline upload {model_key} PATH…"
        )
    return model


def ensure_model(
    session: Session, model_key: str, description: ModelDescription | None, now: datetime
) -> UserModel:
    """The model of that key, made with its user where it is new. An existing model is never changed."""
    if not is_model_key(model_key):
        raise IntakeError(
            f"{model_key!r} cannot name a model. Use letters, digits, '.', '_' and '-' only, at most 100, "
            "and no e-mail address"
        )
    described = description or ModelDescription()
    house = described.model_type == "style" and described.user_id in (None, HOUSE_USER)
    user_id = described.user_id or (HOUSE_USER if house else _own_user_id(model_key))
    existing = session.scalars(select(UserModel).where(UserModel.model_key == model_key)).one_or_none()
    if existing is not None:
        return existing
    if (gone := erased(session, model_key, [Name.MODEL])) is not None:
        raise IntakeError(erased_says(f"model {model_key!r}", gone))
    user = ensure_user(session, user_id, now, email=described.email, house=house)
    for _ in range(_ATTEMPTS):
        try:
            with session.begin_nested():
                return _add_model(session, user, model_key, described, now)
        except IntegrityError:
            # Somebody made this model, or took this trigger word, at the same moment.
            existing = session.scalars(
                select(UserModel).where(UserModel.model_key == model_key)
            ).one_or_none()
            if existing is not None:
                return existing
    raise IntakeError(
        f"no trigger word could be found for {model_key!r}: too many models are being made. Try again"
    )


def take_trigger_word(session: Session, model: UserModel, word: str) -> None:
    """Give a new model the word that its LoRAs were trained on, where no other has it: prompts are written with it."""
    taken = select(UserModel.id).where(UserModel.trigger_word == word, UserModel.id != model.id)
    if session.scalars(taken).first() is None:
        model.trigger_word = word
        session.flush()


def _own_user_id(model_key: str) -> str:
    """The user of a model whose description names none. User ids are shorter than model keys may be."""
    if len(model_key) <= _USER_ID_LENGTH:
        return model_key
    return f"{model_key[:40]}-{hashlib.sha256(model_key.encode()).hexdigest()[:16]}"


def lock_user(session: Session, user_id: str) -> User:
    """Hold the user's row until the transaction ends: whoever changes images or sets of one user waits in line."""
    user = session.scalars(select(User).where(User.id == user_id).with_for_update()).one_or_none()
    if user is None:
        raise IntakeError("the user has just been erased; nothing was taken in")
    return user


def erased_says(what: str, gone: Erased) -> str:
    """Why nothing is taken in under a name of somebody who was erased, and what to do."""
    return f"{what} was {gone}. Nothing is taken in under that name again: whoever comes back gets a new one"


def ensure_user(
    session: Session, user_id: str, now: datetime, *, email: str | None = None, house: bool = False
) -> User:
    """The user, made where they are new, and held until the transaction ends. An existing one is never changed."""
    if session.get(User, user_id) is None:
        if (gone := erased(session, user_id, [Name.USER])) is not None:
            raise IntakeError(erased_says("this user", gone))
        try:
            with session.begin_nested():
                session.add(User(id=user_id, email=email, is_house=house, created_at=now, updated_at=now))
        except IntegrityError:
            pass  # made by somebody else at the same moment
    return lock_user(session, user_id)


def _add_model(
    session: Session, user: User, model_key: str, described: ModelDescription, now: datetime
) -> UserModel:
    identifier = user.id if described.model_type == "person" else model_key
    word = _free_trigger(session, identifier, described)
    model = UserModel(
        user_id=user.id,
        model_key=model_key,
        model_name=described.model_name or model_key,
        model_type=described.model_type,
        gender=described.gender,
        trigger_word=word,
        is_test=described.is_test,
        created_at=now,
        updated_at=now,
    )
    session.add(model)
    session.flush()
    if user.active_model_id is None and not user.is_house:
        user.active_model_id = model.id
    return model


def _free_trigger(session: Session, identifier: str, described: ModelDescription) -> str:
    base = trigger_base(identifier, described.model_type)
    taken = set(
        session.scalars(
            select(UserModel.trigger_word).where(UserModel.trigger_word.istartswith(base, autoescape=True))
        )
    )
    return trigger_word_for(identifier, {word.lower() for word in taken}, described.model_type)
