"""Which models have a set that is ready to train: asked for, or enough photographs and quiet. Reads no photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ImageSet, TrainingRun, UserModel
from lora_pipeline.image_sets.arrivals import Arrivals, new_arrivals
from lora_pipeline.image_sets.findings import Severity
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.trainings.lifecycle import OPEN

Reason = Literal["asked for", "enough images and quiet"]


@dataclass(frozen=True)
class SetState:
    """What decides whether a model's next set is ready. `usable` counts new arrivals as if all were good."""

    usable: int = 0
    changed: bool = False
    """It differs from the last frozen set, or something has arrived."""
    blocked: bool = False
    """A check forbids it as it stands; arrivals may change that."""
    last_image_at: datetime | None = None
    asked_for_at: datetime | None = None


@dataclass(frozen=True)
class ReadyModel:
    """A model whose set is ready. `known` is False for a folder of the inbox whose model is not made yet."""

    model_key: str
    reason: Reason
    usable: int
    arrivals: int
    """Files in the inbox that are not taken in yet."""
    known: bool = True


@dataclass(frozen=True)
class Readiness:
    """The models that are ready, and what of the inbox could not be looked at (the other models go on)."""

    ready: tuple[ReadyModel, ...]
    problems: tuple[str, ...]


def why_ready(state: SetState, *, ready_images: int, ready_quiet: timedelta, now: datetime) -> Reason | None:
    """The rule: somebody asked, or enough usable images, something new, and no arrival for a while."""
    if state.asked_for_at is not None:
        return "asked for"
    if not state.changed or state.blocked or state.usable < ready_images:
        return None
    if state.last_image_at is not None and now - state.last_image_at < ready_quiet:
        return None
    return "enough images and quiet"


def ready_models(
    database: Database,
    inbox: ObjectStore | None,
    *,
    ready_images: int,
    ready_quiet: timedelta,
    now: datetime,
) -> Readiness:
    """Every model whose next set is ready, arrivals in the inbox counted, but for those with an open training.

    One listing of the inbox and a few queries, whatever the number of models. An inbox that cannot be listed is
    reported and the drafts in the database are judged without it.
    """
    arrivals, problems = _arrivals(database, inbox, now)
    with database.read() as session:
        states = _draft_states(session)
        usable = _frozen_usable(session, [key for key in arrivals if key not in states])
        training = set(
            session.scalars(
                select(UserModel.model_key)
                .join(TrainingRun, TrainingRun.model_id == UserModel.id)
                .where(TrainingRun.state.in_(OPEN))
            )
        )
    ready = []
    for key in sorted({*states, *arrivals} - training):
        state = states.get(key, SetState(usable=usable.get(key, 0)))
        arrived = arrivals.get(key)
        if arrived is not None:
            state = _with_arrivals(state, arrived)
        reason = why_ready(state, ready_images=ready_images, ready_quiet=ready_quiet, now=now)
        if reason is not None:
            known = arrived is None or arrived.model_id is not None
            ready.append(ReadyModel(key, reason, state.usable, len(arrived.sources) if arrived else 0, known))
    return Readiness(tuple(ready), tuple(problems))


def why_draft_ready(
    database: Database, model_key: str, *, ready_images: int, ready_quiet: timedelta, now: datetime
) -> Reason | None:
    """Whether the model's draft is ready now that its arrivals are taken in; None where it is not.

    `ready_models` counts arrivals as if all were good. Whoever took them in asks again before freezing, so that
    four good photographs among ten files start no paid training.
    """
    with database.read() as session:
        state = _draft_states(session, model_key).get(model_key)
    if state is None:
        return None
    return why_ready(state, ready_images=ready_images, ready_quiet=ready_quiet, now=now)


def _with_arrivals(state: SetState, arrived: Arrivals) -> SetState:
    latest = max(source.arrived_at for source in arrived.sources)
    return replace(
        state,
        usable=state.usable + len(arrived.sources),
        changed=True,
        blocked=False,
        last_image_at=max(state.last_image_at or latest, latest),
    )


def _arrivals(
    database: Database, inbox: ObjectStore | None, now: datetime
) -> tuple[dict[str, Arrivals], list[str]]:
    found: dict[str, Arrivals] = {}
    problems: list[str] = []
    if inbox is None:
        return found, problems
    try:
        for arrivals in new_arrivals(database, inbox, now=now):
            if arrivals.problem:
                problems.append(f"{inbox.root}: {arrivals.problem}")
            else:
                found[arrivals.model_key] = arrivals
    except ObjectStoreError as error:
        problems.append(f"the inbox cannot be listed to its end. {error}")
    return found, problems


def _draft_states(session: Session, model_key: str | None = None) -> dict[str, SetState]:
    """Every draft, or one model's. Frozen sets are read only where a draft stands beside them."""
    only = [UserModel.model_key == model_key] if model_key else []
    draft = aliased(ImageSet)
    digests = session.execute(
        select(ImageSet.model_id, ImageSet.digest)
        .join(UserModel, UserModel.id == ImageSet.model_id)
        .join(draft, draft.model_id == ImageSet.model_id)
        .where(ImageSet.state == "ready", draft.state == "draft", *only)
        .order_by(ImageSet.id)
    )
    frozen = {row.model_id: row.digest for row in digests}
    drafts = session.execute(
        select(
            UserModel.model_key,
            ImageSet.model_id,
            ImageSet.usable_count,
            ImageSet.digest,
            ImageSet.findings,
            ImageSet.last_image_at,
            ImageSet.asked_for_at,
        )
        .join(UserModel, UserModel.id == ImageSet.model_id)
        .where(ImageSet.state == "draft", *only)
    )
    return {
        row.model_key: SetState(
            usable=row.usable_count,
            changed=row.digest is not None and row.digest != frozen.get(row.model_id),
            blocked=_blocks(row.findings),
            last_image_at=row.last_image_at,
            asked_for_at=row.asked_for_at,
        )
        for row in drafts
    }


def _blocks(findings: list[Mapping[str, Any]]) -> bool:
    return any(finding["severity"] == Severity.BLOCK for finding in findings)


def _frozen_usable(session: Session, model_keys: list[str]) -> dict[str, int]:
    """How many images the newest frozen set of each model has: what its next draft starts with."""
    counts: dict[str, int] = {}
    for start in range(0, len(model_keys), 500):
        rows = session.execute(
            select(UserModel.model_key, ImageSet.usable_count)
            .join(ImageSet, ImageSet.model_id == UserModel.id)
            .where(UserModel.model_key.in_(model_keys[start : start + 500]), ImageSet.state == "ready")
            .order_by(ImageSet.id)
        )
        counts.update({row.model_key: row.usable_count for row in rows})
    return counts
