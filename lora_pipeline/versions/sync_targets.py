"""Which models a report and a sync are about, with everything our own records say of them.

One model a user, the one their application generates with; the house's models one by one. Read once, by columns,
so that ten thousand models are one query and some megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import groupby
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Activation,
    ModelVersion,
    ProviderSighting,
    TrainingRun,
    User,
    UserModel,
)
from lora_pipeline.identity import IdentityError, VersionRef, parse_version
from lora_pipeline.versions.drift import ServedVersion
from lora_pipeline.versions.formats import KNOWN_TRAINERS, StoredVersion, read_stored
from lora_pipeline.versions.lookup import ModelNotFound, find_model

_READ = 1_000
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Sighting:
    """What the provider had of a model when it was last looked at."""

    provider_model: str
    latest: str | None
    latest_at: datetime | None
    problem: str | None
    detail: str
    seen_at: datetime
    total: int | None
    newest: tuple[tuple[str, datetime | None], ...]
    counted_at: datetime | None


@dataclass(frozen=True)
class SyncTarget:
    """One model as our records have it at one moment: what a later compare-and-set compares with."""

    model_id: int
    model_key: str
    user_id: str
    email: str | None = field(repr=False)
    is_house: bool
    provider_model: str | None
    """`replicate_model_id`, word for word."""
    version: str | None
    """`replicate_version_id`, word for word."""
    weights_url: str | None = field(repr=False)
    training_id: str | None
    updated_at: datetime
    completed_at: datetime | None
    stored: StoredVersion
    activation_id: int | None
    pinned: bool
    activated: VersionRef | None
    """The version of the open activation; None where the history has not begun."""
    weights_state: str | None
    succeeded_at: datetime | None
    sighting: Sighting | None

    @property
    def model(self) -> str | None:
        """`owner/name` at the provider, understood."""
        return self.stored.canonical_model

    @cached_property
    def served(self) -> ServedVersion:
        """The same for the rule that judges it."""
        version = self.stored.version
        # Registered facts are about the version in the history; a row changed past us serves another.
        same = version is not None and self.activated is not None and version.hash == self.activated.hash
        return ServedVersion(
            self.stored,
            self.weights_url,
            self.weights_state if same else None,
            self.pinned,
            self.succeeded_at if same else None,
        )


def known_trainers(session: Session, trainer: str) -> tuple[VersionRef, ...]:
    """The configured trainer, those of our own trainings, and those that are known anyway."""
    texts = {trainer}
    for column in (TrainingRun.trainer_requested, TrainingRun.trainer_returned):
        texts.update(text for text in session.scalars(select(column).distinct()) if text)
    return (*KNOWN_TRAINERS, *_readable(texts))


def is_chosen(pattern: str, model_key: str, user_id: str) -> bool:
    """Whether a model is among those that a pattern (`user-*`) over model keys and user ids means."""
    return fnmatchcase(model_key, pattern) or fnmatchcase(user_id, pattern)


def active_targets(
    session: Session, trainers: Sequence[VersionRef], *, include_tests: bool = False
) -> list[SyncTarget]:
    """The active completed model of each user, and every completed model of the house; test rows only if asked.

    A user without an active model counts with the one completed last. When a row was last changed says nothing:
    a sync changes it too.
    """
    question = _targets().where(UserModel.training_status == "completed")
    if not include_tests:
        question = question.where(UserModel.is_test.is_(False))
    rows = session.execute(question.order_by(UserModel.user_id, UserModel.id)).yield_per(_READ)
    return [_target(row, trainers) for row in _active_rows(rows)]


def one_target(
    session: Session, model_id: int, trainers: Sequence[VersionRef], *, listed_only: bool = True
) -> SyncTarget:
    """One model, whether or not it is its user's active one.

    Raises ModelNotFound where no provider lists its versions, unless that does not matter (`listed_only` False).
    """
    question = _targets(listed_only=listed_only).where(UserModel.id == model_id)
    row = session.execute(question).one_or_none()
    if row is None:
        key = session.get_one(UserModel, model_id).model_key
        raise ModelNotFound(
            f"{key} serves a version of a provider that keeps no list of versions: there is nothing to compare it "
            f"with. See what it has: lora-pipeline versions {key}"
        )
    return _target(row, trainers)


def targets_of(session: Session, text: str, trainers: Sequence[VersionRef]) -> list[SyncTarget]:
    """What a report about `text` is about: a user (by id or e-mail), or one model. Raises ModelNotFound."""
    wanted = text.strip()
    users = session.scalars(
        select(User.id).where(or_(User.id == wanted, func.lower(User.email) == wanted.lower()))
    ).all()
    question = _targets().where(UserModel.training_status == "completed", UserModel.user_id.in_(users))
    rows = session.execute(question.order_by(UserModel.user_id, UserModel.id)).all() if users else []
    found = [_target(row, trainers) for row in _active_rows(rows)]
    if not found:
        model = find_model(session, wanted)
        if model.training_status != "completed":
            raise ModelNotFound(
                f"{model.model_key} has no completed training (its status is {model.training_status}). "
                f"See why: lora-pipeline why {model.model_key}"
            )
        found = [one_target(session, model.id, trainers)]
    return found


def _active_rows(rows: Iterable[Any]) -> Iterator[Any]:
    for _, models in groupby(rows, key=lambda row: row.user_id):
        completed = list(models)
        if completed[0].is_house:
            yield from completed
            continue
        active = [row for row in completed if row.model_id == row.active_model_id]
        yield active[0] if active else max(completed, key=lambda r: (r.completed_at or _NEVER, r.model_id))


def _targets(*, listed_only: bool = True) -> Any:
    """Every fact by name. Versions of providers without a list of versions are none of a sync's business."""
    question = (
        select(
            UserModel.id.label("model_id"),
            UserModel.model_key,
            UserModel.user_id,
            User.email,
            User.is_house,
            User.active_model_id,
            UserModel.replicate_model_id,
            UserModel.replicate_version_id,
            UserModel.lora_weights_url,
            UserModel.training_id,
            UserModel.updated_at,
            UserModel.completed_at,
            Activation.id.label("activation_id"),
            Activation.pinned,
            ModelVersion.provider_version.label("activated"),
            ModelVersion.weights_state,
            ModelVersion.trained_at,
            ProviderSighting.provider_model,
            ProviderSighting.latest,
            ProviderSighting.latest_at,
            ProviderSighting.problem,
            ProviderSighting.detail,
            ProviderSighting.seen_at,
            ProviderSighting.total,
            ProviderSighting.newest,
            ProviderSighting.counted_at,
        )
        .select_from(UserModel)
        .join(User, User.id == UserModel.user_id)
        .outerjoin(Activation, (Activation.model_id == UserModel.id) & Activation.active_to.is_(None))
        .outerjoin(ModelVersion, ModelVersion.id == Activation.version_id)
        .outerjoin(ProviderSighting, ProviderSighting.model_id == UserModel.id)
    )
    if listed_only:
        question = question.where(or_(ModelVersion.id.is_(None), ModelVersion.provider == "replicate"))
    return question


def _target(row: Any, trainers: Sequence[VersionRef]) -> SyncTarget:
    return SyncTarget(
        model_id=row.model_id,
        model_key=row.model_key,
        user_id=row.user_id,
        email=row.email,
        is_house=row.is_house,
        provider_model=row.replicate_model_id,
        version=row.replicate_version_id,
        weights_url=row.lora_weights_url,
        training_id=row.training_id,
        updated_at=row.updated_at,
        completed_at=row.completed_at,
        stored=read_stored(row.replicate_model_id, row.replicate_version_id, trainers),
        activation_id=row.activation_id,
        pinned=bool(row.pinned),
        activated=next(iter(_readable([row.activated or ""])), None),
        weights_state=row.weights_state,
        succeeded_at=row.trained_at,
        sighting=_sighting(row),
    )


def _sighting(row: Any) -> Sighting | None:
    if row.seen_at is None:
        return None
    newest = tuple((text, datetime.fromisoformat(at) if at else None) for text, at in row.newest)
    return Sighting(
        row.provider_model,
        row.latest,
        row.latest_at,
        row.problem,
        row.detail,
        row.seen_at,
        row.total,
        newest,
        row.counted_at,
    )


def _readable(texts: Iterable[str]) -> Iterator[VersionRef]:
    for text in texts:
        try:
            yield parse_version(text)
        except IdentityError:
            continue
