"""Carry out a plan for the registry, and undo it: one transaction a group, with every changed row in the journal.

A merged version keeps its row and its number and leads to the survivor by a redirect, always in one hop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import Observing, observing_says
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Activation,
    AuditEntry,
    Base,
    InventoryObject,
    MergeJournal,
    MergePlan,
    ModelVersion,
    UserModel,
    UtcDateTime,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.inventory.plan_store import PlanRefused
from lora_pipeline.inventory.registry_plan import RegistryPlan, VersionGroup
from lora_pipeline.inventory.registry_versions import MOMENTS, fingerprint, read_versions
from lora_pipeline.versions.activation import activate, open_activation


@dataclass(frozen=True, slots=True)
class RegistryResult:
    """What applying or undoing did. `refused` are (what, reason) pairs; nothing of them was changed."""

    plan_id: str
    state: str
    changed: int = 0
    already: int = 0
    refused: tuple[tuple[str, str], ...] = field(default=())


class _Refused(Exception):
    pass


def apply_registry_plan(database: Database, plan: RegistryPlan, now: datetime, actor: str) -> RegistryResult:
    """Merge the groups of a stored plan; those whose versions changed since are refused. Safe to repeat and to kill."""
    if database.observing:
        raise Observing(observing_says(f"plan {plan.id} was not carried out"))
    if plan.state in ("undoing", "undone"):
        raise PlanRefused(f"plan {plan.id} is {plan.state}. Make a new one: lora-pipeline dedupe")
    _set_state(database, plan.id, "applying", now)
    changed = already = 0
    refused: list[tuple[str, str]] = []
    for group in plan.groups:
        try:
            with database.begin() as session:
                if _merge(session, plan.id, group, now, actor):
                    changed += 1
                else:
                    already += 1
        except _Refused as reason:
            refused.append((f"{group.model_key} {group.names[str(group.survivor)]}", str(reason)))
    _set_state(database, plan.id, "applied", now)
    return RegistryResult(plan.id, "applied", changed, already, tuple(refused))


def undo_registry_plan(database: Database, plan: RegistryPlan, now: datetime, actor: str) -> RegistryResult:
    """Bring back every row that the plan changed, group by group; those changed since are refused."""
    if plan.state == "planned":
        raise PlanRefused(f"plan {plan.id} was never applied: there is nothing to undo")
    _set_state(database, plan.id, "undoing", now)
    changed = 0
    refused: list[tuple[str, str]] = []
    for group in reversed(plan.groups):
        name = f"{group.model_key} {group.names[str(group.survivor)]}"
        try:
            with database.begin() as session:
                changed += _unmerge(session, plan.id, group, now, actor)
        except _Refused as reason:
            refused.append((name, str(reason)))
    state = "undoing" if refused else "undone"
    _set_state(database, plan.id, state, now)
    return RegistryResult(plan.id, state, changed, 0, tuple(refused))


def _set_state(database: Database, plan_id: str, state: str, now: datetime) -> None:
    times = {"applied": {"applied_at": now}, "undone": {"undone_at": now}}.get(state, {})
    with database.begin() as session:
        session.execute(update(MergePlan).where(MergePlan.id == plan_id).values(state=state, **times))


def _merge(session: Session, plan_id: str, group: VersionGroup, now: datetime, actor: str) -> bool:
    """Merge one group; False where that was done before."""
    model = session.scalars(
        select(UserModel).where(UserModel.model_key == group.model_key).with_for_update()
    ).one_or_none()
    if model is None:
        raise _Refused("the model is gone")
    journal = _Journal(session, plan_id, group.survivor, now)
    if journal.known():
        return False
    concerned = {group.survivor, *group.losers}
    versions = [one for one in read_versions(session, [model.id]) if one.id in concerned]
    if fingerprint(versions) != group.fingerprint:
        raise _Refused("changed since the plan was made; plan again")
    session.expunge_all()
    values = {version.id: version.values for version in versions}
    for loser in group.losers:
        # Unique ids leave the loser before the survivor takes them.
        journal.set(
            ModelVersion, loser, {"provider_version": None, "training_run_id": None, "updated_at": now}
        )
    journal.set(ModelVersion, group.survivor, {**_merged(group, values), "updated_at": now})
    _repoint(session, journal, group, now)
    _serve(session, journal, model.id, group.survivor, now, actor)
    details = {
        "plan": plan_id,
        "into": group.names[str(group.survivor)],
        "versions": sorted(group.names.values()),
    }
    session.add(AuditEntry(at=now, actor=actor, action="merge", subject=group.model_key, details=details))
    return True


def _merged(group: VersionGroup, values: dict[int, dict[str, Any]]) -> dict[str, Any]:
    merged = {name: values[choice["from"]][name] for name, choice in group.fields.items()}
    merged |= {name: datetime.fromisoformat(merged[name]) for name in MOMENTS if merged[name] is not None}
    order = [group.survivor, *group.losers]
    for name in ("parameters", "provenance"):
        merged[name] = {
            key: value for one in reversed(order) for key, value in (values[one][name] or {}).items()
        }
    return merged


def _repoint(session: Session, journal: _Journal, group: VersionGroup, now: datetime) -> None:
    """Everything that named a loser names the survivor. Older redirects first, so that each stays one hop."""
    for table in (VersionRedirect, VersionAlias, Activation, InventoryObject):
        key = _key(_rows(table))
        for row in session.scalars(select(key).where(table.version_id.in_(group.losers)).order_by(key)).all():
            journal.set(table, row, {"version_id": group.survivor})
    for loser in group.losers:
        journal.add(VersionRedirect, loser, {"version_id": group.survivor, "created_at": now})


def _serve(
    session: Session, journal: _Journal, model_id: int, survivor: int, now: datetime, actor: str
) -> None:
    """What the model serves is written anew where the survivor is in force: it may have gained an address."""
    current = open_activation(session, model_id)
    if current is None or current.version_id != survivor:
        return
    before = _image(session, UserModel, model_id)
    model, version = session.get_one(UserModel, model_id), session.get_one(ModelVersion, survivor)
    activate(session, model, version, actor=actor, reason="merged", now=now, pinned=current.pinned)
    session.flush()
    journal.note(UserModel, model_id, before, _image(session, UserModel, model_id))


def _unmerge(session: Session, plan_id: str, group: VersionGroup, now: datetime, actor: str) -> int:
    session.scalars(
        select(UserModel.id).where(UserModel.model_key == group.model_key).with_for_update()
    ).first()
    journal = _Journal(session, plan_id, group.survivor, now)
    rows = journal.known()
    if not rows:
        return 0
    for row in reversed(rows):
        journal.take_back(row)
    session.add(
        AuditEntry(at=now, actor=actor, action="unmerge", subject=group.model_key, details={"plan": plan_id})
    )
    return 1


class _Journal:
    """Changes rows of one group, each noted with what it was and what it became."""

    def __init__(self, session: Session, plan_id: str, survivor: int, now: datetime) -> None:
        self.session, self.plan_id, self.now = session, plan_id, now
        self.group = f"group {survivor}/"

    def known(self) -> Sequence[MergeJournal]:
        """What was noted for this group and not taken back, in order."""
        return self.session.scalars(
            select(MergeJournal)
            .where(
                MergeJournal.plan_id == self.plan_id,
                MergeJournal.target.startswith(self.group),
                MergeJournal.undone_at.is_(None),
            )
            .order_by(MergeJournal.sequence)
        ).all()

    def set(self, table: type[Base], key: int, values: dict[str, Any]) -> None:
        """Change columns of a row."""
        before = _image(self.session, table, key)
        rows = _rows(table)
        self.session.execute(update(rows).where(_key(rows) == key).values(values))
        self.note(table, key, before, _image(self.session, table, key))

    def add(self, table: type[Base], key: int, values: dict[str, Any]) -> None:
        rows = _rows(table)
        self.session.execute(insert(rows).values({_key(rows).name: key, **values}))
        self.note(table, key, {}, _image(self.session, table, key))

    def note(self, table: type[Base], key: int, before: dict[str, Any], after: dict[str, Any]) -> None:
        # Every writer bumps updated_at: it neither is a change nor tells of one.
        changed = [
            name for name in after if name != "updated_at" and (not before or after[name] != before[name])
        ]
        if not changed:
            return
        self.session.add(
            MergeJournal(
                plan_id=self.plan_id,
                sequence=self._next(),
                target=f"{self.group}{table.__tablename__}/{key}",
                before={name: before[name] for name in changed} if before else {},
                after={name: after[name] for name in changed},
                done_at=self.now,
            )
        )
        self.session.flush()

    def take_back(self, row: MergeJournal) -> None:
        """Undo one noted change; _Refused where the row is no longer as it was left."""
        _, name, key_text = row.target.rsplit("/", 2)
        rows, key = Base.metadata.tables[name], int(key_text)
        found = self.session.execute(select(rows).where(_key(rows) == key)).mappings().one_or_none()
        if found is None or any(_plain(found[column]) != value for column, value in row.after.items()):
            raise _Refused(f"{name} {key} was changed since the plan was applied")
        if row.before:
            self.session.execute(update(rows).where(_key(rows) == key).values(_typed(rows, row.before)))
        else:
            self.session.execute(delete(rows).where(_key(rows) == key))
        row.undone_at = self.now

    def _next(self) -> int:
        last = self.session.scalar(
            select(MergeJournal.sequence)
            .where(MergeJournal.plan_id == self.plan_id)
            .order_by(MergeJournal.sequence.desc())
            .limit(1)
        )
        return (last or 0) + 1


def _rows(table: type[Base]) -> Table:
    found = table.__table__
    assert isinstance(found, Table)
    return found


def _key(rows: Table) -> Any:
    (key,) = rows.primary_key.columns
    return key


def _image(session: Session, table: type[Base], key: int) -> dict[str, Any]:
    rows = _rows(table)
    found = session.execute(select(rows).where(_key(rows) == key)).mappings().one()
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(rows: Table, image: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value)
        if isinstance(rows.c[name].type, UtcDateTime) and value is not None
        else value
        for name, value in image.items()
    }
