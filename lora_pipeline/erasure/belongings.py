"""Whose rows are whose: the user that is meant, whether they can be erased now, and everything that is theirs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Artifact,
    Image,
    ImageSet,
    LoraWeights,
    ModelVersion,
    TrainingRun,
    User,
    UserModel,
)
from lora_pipeline.lineage.graph import Kind as NodeKind
from lora_pipeline.lineage.node_ids import node_id
from lora_pipeline.lineage.reading import read_lineage
from lora_pipeline.lineage.rows import Scope
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState

_CANCELLABLE = frozenset(
    {
        TrainingState.READY,
        TrainingState.PACKED,
        TrainingState.INTENT,
        TrainingState.SUBMITTED,
        TrainingState.RUNNING,
    }
)


class UserNotFound(LookupError):
    """No user, or more than one, is meant."""


class ErasureRefused(Exception):
    """This user cannot be erased now; the message says why and what to do."""


@dataclass(frozen=True)
class Belongings:
    """The rows that are a user's."""

    user: User
    models: list[UserModel]
    images: list[Image]
    sets: list[ImageSet]
    runs: list[TrainingRun]
    versions: list[ModelVersion]
    """All that were trained with their photographs, or are of their models, live or not, merged or not."""
    artifacts: list[Artifact]
    shared: frozenset[int]
    """Ids of those artifacts that another user's version has too."""


def find_user(session: Session, text: str) -> User | None:
    """The user of this id, e-mail address or model key; None where there is none. UserNotFound where several are meant."""
    wanted = text.strip().removeprefix("user:")
    user = session.get(User, wanted)
    if user is not None:
        return user
    by_model = select(User).join(UserModel, UserModel.user_id == User.id)
    for question in (
        select(User).where(func.lower(User.email) == wanted.lower()),
        by_model.where(UserModel.model_key == wanted),
    ):
        found = session.scalars(question.order_by(User.id)).all()
        if len(found) > 1:
            ids = ", ".join(one.id for one in found)
            raise UserNotFound(f"{len(found)} users have this e-mail address. Name one by its id: {ids}")
        if found:
            return found[0]
    return None


def refuse_unless_erasable(session: Session, user: User) -> None:
    """Raise ErasureRefused for the house, and while a training is open."""
    if user.is_house:
        raise ErasureRefused(
            f"user {user.id} is the house, which owns the styles of everybody. Nothing of it is personal; remove a "
            "single style's versions by hand"
        )
    runs = session.scalars(
        select(TrainingRun).where(TrainingRun.user_id == user.id, TrainingRun.state.in_(OPEN))
    ).all()
    if runs:
        commands = "; ".join(
            f"lora-pipeline trainings cancel {run.id}"
            if run.state in _CANCELLABLE
            else f"lora-pipeline trainings resolve {run.id} --abandon"
            if run.state in (TrainingState.HELD, TrainingState.LOST)
            else f"training {run.id} has succeeded: wait until its weights are registered"
            for run in runs
        )
        raise ErasureRefused(
            f"user {user.id} has {len(runs)} training{'s' if len(runs) > 1 else ''} under way, which would go on at the "
            f"provider with their photographs. End them first, then erase again: {commands}"
        )


def belongings(session: Session, user: User) -> Belongings:
    """The user's rows; whose versions they are is the lineage's answer."""
    models = list(session.scalars(select(UserModel).where(UserModel.user_id == user.id)))
    ids = [model.id for model in models]
    images = list(session.scalars(select(Image).where(Image.user_id == user.id)))
    versions = list(session.scalars(select(ModelVersion).where(ModelVersion.id.in_(_trained(session, user)))))
    content = {version.artifact_id for version in versions} - {None}
    content |= set(session.scalars(select(LoraWeights.artifact_id).where(LoraWeights.user_id == user.id)))
    own = [version.id for version in versions]
    shared = set(
        session.scalars(
            select(ModelVersion.artifact_id).where(
                ModelVersion.artifact_id.in_(content), ModelVersion.id.not_in(own)
            )
        )
    ) | set(
        session.scalars(
            select(LoraWeights.artifact_id).where(
                LoraWeights.artifact_id.in_(content), LoraWeights.user_id != user.id
            )
        )
    )
    return Belongings(
        user=user,
        models=models,
        images=images,
        sets=list(session.scalars(select(ImageSet).where(ImageSet.model_id.in_(ids)))),
        runs=list(session.scalars(select(TrainingRun).where(TrainingRun.user_id == user.id))),
        versions=versions,
        artifacts=list(session.scalars(select(Artifact).where(Artifact.id.in_(content)))),
        shared=frozenset(one for one in shared if one is not None),
    )


def _trained(session: Session, user: User) -> set[int]:
    keys = session.scalars(select(UserModel.model_key).where(UserModel.user_id == user.id))
    hashes = session.scalars(select(Image.sha256).where(Image.user_id == user.id))
    starts = [node_id(NodeKind.MODEL, key) for key in keys] + [node_id(NodeKind.IMAGE, sha) for sha in hashes]
    found = read_lineage(session, starts, Scope(user.id), up=False).nodes.values()
    of_lineage = {int(node.facts["version_id"]) for node in found if node.kind is NodeKind.VERSION}
    own = select(ModelVersion.id).join(UserModel, UserModel.id == ModelVersion.model_id)
    return of_lineage | set(session.scalars(own.where(UserModel.user_id == user.id)))
