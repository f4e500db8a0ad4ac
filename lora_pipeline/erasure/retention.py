"""What is deleted because its time is over, without anybody asking: photographs, and bookkeeping that nobody needs.

Also where erasures that a process left half done go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import (
    AuditEntry,
    Erasure,
    Image,
    ImageSet,
    ImageSetMember,
    OutboxEvent,
    SelfieUpload,
    TrainingRun,
    User,
    UserModel,
    WebhookDelivery,
)
from lora_pipeline.erasure.carrying_out import Carried, ForgetPartition, carry_out, unfinished
from lora_pipeline.erasure.names import Name, erased_among
from lora_pipeline.erasure.removing import Remover
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.models import lock_user
from lora_pipeline.objects.errors import ObjectStoreError
from lora_pipeline.trainings.lifecycle import OPEN

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections

log = logging.getLogger(__name__)

KEEP_BOOKKEEPING = timedelta(days=30)
"""Webhooks about jobs that were never ours, and events that Dagster has: long enough to look into what went wrong."""
RECENT = timedelta(days=2)
"""So long after an erasure's begin its user's folder is looked for again: an intake in flight may have stored more."""
ACTOR = "retention"


@dataclass(frozen=True)
class DueUser:
    """One user's photographs whose time is over."""

    user_id: str
    models: tuple[str, ...]
    photographs: int
    bytes: int


@dataclass(frozen=True)
class RetentionReport:
    """What was due, and what became of it."""

    applied: bool
    due: tuple[DueUser, ...] = ()
    photographs: int = 0
    """Deleted."""
    failures: tuple[str, ...] = ()
    erasures: tuple[Carried, ...] = ()
    leftovers: int = 0
    """Files of erased users that an intake in flight had stored."""
    bookkeeping: dict[str, int] = field(default_factory=dict)
    """Table → rows that were due."""


def run_retention(
    connections: Connections,
    *,
    apply: bool = True,
    forget_partition: ForgetPartition | None = None,
    say: Callable[[str], Any] = log.info,
) -> RetentionReport:
    """Delete what is due and carry erasures on; without `apply`, and while observing, only say what is due."""
    database, now = connections.database, connections.now()
    cutoff = now - connections.settings.keep_photographs
    with database.read() as session:
        due = due_photographs(session, cutoff)
        old = {table.__tablename__: _count(session, table, old) for table, old in _old_rows(now)}
    if not apply or database.observing:
        return RetentionReport(False, due, bookkeeping=old)
    photographs, failures = 0, []
    for one in due:
        try:
            photographs += delete_due(connections, one.user_id, cutoff)
        except (ObjectStoreError, IntakeError) as error:
            failures.append(str(error))
    erasures = []
    for erasure_id in unfinished(connections):
        carried = carry_out(connections, erasure_id, forget_partition=forget_partition)
        say(f"erasure {erasure_id}: {'completed' if carried.completed else 'goes on'}")
        erasures.append(carried)
    leftovers = _sweep(connections, now, failures)
    return RetentionReport(
        True, due, photographs, tuple(failures), tuple(erasures), leftovers, _clean(database, now)
    )


def due_photographs(session: Session, cutoff: datetime, user_id: str | None = None) -> tuple[DueUser, ...]:
    """Users with photographs that are due: nothing of any model that uses them was trained, asked for or sent since."""
    images = session.execute(
        _due(cutoff, user_id)
        .with_only_columns(
            Image.user_id,
            func.count(Image.id),
            func.sum(Image.size + func.coalesce(Image.normalised_size, 0)),
        )
        .group_by(Image.user_id)
        .order_by(Image.user_id)
    ).all()
    return tuple(
        DueUser(
            user,
            tuple(
                session.scalars(
                    select(UserModel.model_key).where(UserModel.user_id == user).order_by(UserModel.id)
                )
            ),
            count,
            int(size),
        )
        for user, count, size in images
    )


def _due(cutoff: datetime, user_id: str | None) -> Any:
    """The house's pictures are nobody's face, and stay."""
    trained = select(TrainingRun.model_id).where(
        or_(
            TrainingRun.state.in_(OPEN),
            func.coalesce(TrainingRun.completed_at, TrainingRun.state_changed_at) > cutoff,
        )
    )
    touched = select(ImageSet.model_id).where(
        or_(ImageSet.last_image_at > cutoff, ImageSet.asked_for_at > cutoff)
    )
    in_use = (
        select(ImageSetMember.image_id)
        .join(ImageSet, ImageSet.id == ImageSetMember.image_set_id)
        .where(or_(ImageSet.model_id.in_(trained), ImageSet.model_id.in_(touched)))
    )
    found = (
        select(Image)
        .join(User, User.id == Image.user_id)
        .where(
            Image.deleted_at.is_(None),
            Image.created_at <= cutoff,
            ~User.is_house,
            Image.id.not_in(in_use),
        )
    )
    return found if user_id is None else found.where(Image.user_id == user_id)


def delete_due(connections: Connections, user_id: str, cutoff: datetime) -> int:
    """Delete one user's due photographs; how many. Harmless to repeat: files first, then what the rows say of them.

    The user's row is held meanwhile, so that nobody takes the same photograph in at that moment.
    """
    remover, store, now = Remover(connections.store), connections.store, connections.now()
    with connections.database.begin() as session:
        lock_user(session, user_id)
        images = list(session.scalars(_due(cutoff, user_id)))
        if not images:
            return 0
        for image in images:
            for key in (image.object_key, image.normalised_key):
                if key:
                    remover.delete(store.address(key))
            image.deleted_at = now
        session.flush()
        ids = [image.id for image in images]
        _drop_from_drafts(session, user_id, ids)
        session.execute(update(SelfieUpload).where(SelfieUpload.image_id.in_(ids)).values(processed_url=None))
        models = _drop_sheets(session, ids, remover, connections)
        for key in models:
            session.add(
                AuditEntry(
                    at=now,
                    actor=ACTOR,
                    action="delete due photographs",
                    subject=key,
                    details={"photographs": len(ids)},
                )
            )
        return len(ids)


def _drop_from_drafts(session: Session, user_id: str, images: Sequence[int]) -> None:
    """A draft holds only what can be trained on; an empty one is none. Frozen sets keep their members, and hashes."""
    drafts = session.scalars(
        select(ImageSet)
        .join(UserModel, UserModel.id == ImageSet.model_id)
        .where(UserModel.user_id == user_id, ImageSet.state == "draft")
    )
    for draft in drafts.all():
        members = ImageSetMember.image_set_id == draft.id
        session.execute(delete(ImageSetMember).where(members, ImageSetMember.image_id.in_(images)))
        left = list(session.scalars(select(ImageSetMember.verdict).where(members)))
        if left:
            draft.image_count, draft.usable_count, draft.digest = len(left), left.count("included"), None
        else:
            session.delete(draft)
    session.flush()


def _drop_sheets(
    session: Session, images: Sequence[int], remover: Remover, connections: Connections
) -> list[str]:
    """Delete the contact sheets that show one of them; the keys of the models whose they are. Manifests stay."""
    shown = session.execute(
        select(ImageSet, UserModel.model_key)
        .join(UserModel, UserModel.id == ImageSet.model_id)
        .where(
            ImageSet.id.in_(select(ImageSetMember.image_set_id).where(ImageSetMember.image_id.in_(images)))
        )
    ).all()
    for image_set, _ in shown:
        if image_set.contact_sheet_key:
            remover.delete(connections.store.address(image_set.contact_sheet_key))
            image_set.contact_sheet_key = None
    return sorted({key for _, key in shown})


def _sweep(connections: Connections, now: datetime, failures: list[str]) -> int:
    """Delete what an intake that was in flight stored for somebody who was erased meanwhile."""
    with connections.database.read() as session:
        recent = session.scalars(select(Erasure.id).where(Erasure.began_at > now - RECENT).limit(1)).first()
    if recent is None:
        return 0
    remover, gone, known = Remover(connections.store), 0, {"": False}
    try:
        for info in connections.store.list("users"):
            folder = info.key.split("/")[1]
            if folder not in known:
                with connections.database.read() as session:
                    known[folder] = bool(erased_among(session, [folder], Name.FOLDER))
            if known[folder]:
                gone += remover.delete(connections.store.address(info.key))
    except ObjectStoreError as error:
        failures.append(str(error))
    return gone


def _old_rows(now: datetime) -> Iterable[tuple[type[OutboxEvent] | type[WebhookDelivery], Any]]:
    before = now - KEEP_BOOKKEEPING
    yield OutboxEvent, OutboxEvent.acknowledged_at < before
    yield (
        WebhookDelivery,
        (WebhookDelivery.handled_at.is_(None)) & (WebhookDelivery.received_at < before),
    )


def _count(session: Session, table: type[OutboxEvent] | type[WebhookDelivery], old: Any) -> int:
    return session.scalar(select(func.count()).select_from(table).where(old)) or 0


def _clean(database: Database, now: datetime) -> dict[str, int]:
    found = {}
    for table, old in _old_rows(now):
        with database.begin() as session:
            found[table.__tablename__] = changed_rows(session, delete(table).where(old))
    return found
