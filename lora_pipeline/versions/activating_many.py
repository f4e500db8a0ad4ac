"""Activating versions of many models in one transaction: the same as `activation.activate`, without a query each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.orm import Session

from lora_pipeline.callbacks.owing import version_changed
from lora_pipeline.database.tables import Activation, AuditEntry, Base, Callback, ModelVersion, UserModel
from lora_pipeline.versions.activation import _serve


@dataclass(frozen=True)
class NewActivation:
    """One model and what it serves from now on; the caller has locked the model and read what is in force."""

    model: UserModel
    version: ModelVersion
    current: Activation | None
    reason: str
    pinned: bool = False


def activate_many(session: Session, changes: Sequence[NewActivation], *, actor: str, now: datetime) -> None:
    """Serve each version and write the history. A version that is served already is only served again.

    The models' users must be in the session, or each costs a query.
    """
    new = []
    for change in changes:
        current = change.current
        if current and current.version_id == change.version.id and current.pinned == change.pinned:
            continue
        new.append(change)
        if current is not None:
            current.active_to = max(now, current.active_from)
    # The partial unique index must see every old one closed before a new one opens.
    session.flush()
    if new:
        insert_many(session, Activation, [_activation(change, actor, now) for change in new])
        insert_many(session, AuditEntry, [_entry(change, actor, now) for change in new])
        insert_many(session, Callback, [_callback(change, now) for change in new if _is_another(change)])
    for change in changes:
        _serve(session, change.model, change.version, now)


def insert_many(session: Session, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Rows of one shape into a table, by one statement that gives no ids back."""
    if rows:
        columns = table.__table__
        assert isinstance(columns, Table)
        session.connection().execute(insert(columns), rows)


def _activation(change: NewActivation, actor: str, now: datetime) -> dict[str, Any]:
    current = change.current
    return {
        "model_id": change.model.id,
        "version_id": change.version.id,
        # Another machine's clock may be ahead of ours: an activation never begins before the last one did.
        "active_from": max(now, current.active_from) if current is not None else now,
        "actor": actor,
        "reason": change.reason,
        "pinned": change.pinned,
    }


def _is_another(change: NewActivation) -> bool:
    return change.current is None or change.current.version_id != change.version.id


def _callback(change: NewActivation, now: datetime) -> dict[str, Any]:
    return version_changed(change.model, change.version, change.reason, now)


def _entry(change: NewActivation, actor: str, now: datetime) -> dict[str, Any]:
    details = {"version": change.version.number, "reason": change.reason, "pinned": change.pinned}
    return {
        "at": now,
        "actor": actor,
        "action": "activate",
        "subject": change.model.model_key,
        "details": details,
    }
