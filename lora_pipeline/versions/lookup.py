"""Which model somebody means: by its key, its user, the user's e-mail, or the provider's name for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.erasure.names import erased
from lora_pipeline.identity import IdentityError, parse_model
from lora_pipeline.versions.version_lookup import versions_named

_SHOWN = 10


class ModelNotFound(LookupError):
    """No model, or more than one, is meant by a text; the message says what to write instead."""


def find_model(session: Session, text: str) -> UserModel:
    """The one model that `text` means: a model key, a user id, an e-mail address, `owner/name` or just the name.

    The first of these that finds anything decides. A user with several models means their active one.
    """
    wanted = text.strip()
    for condition in _conditions(wanted):
        found = session.scalars(
            select(UserModel).join(User, User.id == UserModel.user_id).where(condition).order_by(UserModel.id)
        ).all()
        if found:
            return _only(session, found, wanted)
    gone = erased(session, wanted)
    if gone is not None:
        raise ModelNotFound(f"{_quoted(wanted)} was {gone}")
    raise ModelNotFound(_unknown(session, wanted))


def find_model_or_owner(session: Session, text: str) -> UserModel:
    """`find_model`, or the model of the one version that `text` names: a job, an object, an old entry's id."""
    try:
        return find_model(session, text)
    except ModelNotFound:
        owners = {version.model_id for version in versions_named(session, text)}
        if len(owners) != 1:
            raise
        return session.get_one(UserModel, owners.pop())


def _conditions(wanted: str) -> Iterator[ColumnElement[bool]]:
    yield UserModel.model_key == wanted
    yield User.id == wanted
    if "@" in wanted and "/" not in wanted:
        # As it is written first: that is what the index finds. Only another case needs every row.
        yield User.email.in_([wanted, wanted.lower()])
        yield func.lower(User.email) == wanted.lower()
        return
    try:
        model = str(parse_model(wanted))
    except IdentityError:
        # `model-name` alone, as people write it.
        name = wanted.lower().replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        yield func.lower(UserModel.replicate_model_id).like(f"%/{name}", escape="\\")
    else:
        yield UserModel.replicate_model_id == model
        yield func.lower(UserModel.replicate_model_id) == model


def _only(session: Session, found: Sequence[UserModel], wanted: str) -> UserModel:
    if len(found) == 1:
        return found[0]
    if len({model.user_id for model in found}) == 1:
        active = session.get_one(User, found[0].user_id).active_model_id
        for model in found:
            if model.id == active:
                return model
    keys = ", ".join(model.model_key for model in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModelNotFound(f"{_quoted(wanted)} means {len(found)} models. Name one of them: {keys}{more}")


def _unknown(session: Session, wanted: str) -> str:
    keys = list(session.scalars(select(UserModel.model_key).order_by(UserModel.id.desc()).limit(5000)))
    expected = "expected a model key, a user id, an e-mail address or owner/name"
    if not keys:
        return f"no model is called {_quoted(wanted)}: there are none yet. Make one: lora-pipeline upload MODEL PATH…"
    close = get_close_matches(wanted, keys, n=3, cutoff=0.6)
    owners = {version.model_id for version in versions_named(session, wanted)}
    if owners:
        named = ", ".join(session.get_one(UserModel, owner).model_key for owner in sorted(owners))
        return (
            f"{_quoted(wanted)} is no model but a version of {named}. Name the model first, then the version"
        )
    hint = (
        f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(sorted(keys[:_SHOWN]))}"
    )
    return f"no model is called {_quoted(wanted)}; {expected}. {hint}"


def _quoted(wanted: str) -> str:
    """As it may be shown: an e-mail address stays out of logs."""
    return f"…@{wanted.rpartition('@')[2]}" if "@" in wanted else repr(wanted)
