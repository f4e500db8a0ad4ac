"""Activation: which version a model serves, from when, by whom and why.

The one function that writes the served fields of `user_models`, so that version and weights always belong
together. Exactly one activation of a model is open; the database enforces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.callbacks.owing import version_changed
from lora_pipeline.database.tables import Activation, AuditEntry, Callback, ModelVersion, User, UserModel


@dataclass(frozen=True)
class Activated:
    """What activation did."""

    version_id: int
    changed: bool
    """False where the version was served already."""
    kept_pinned: bool = False
    """True where a person pinned another version: the new one is registered and waits."""
    withheld: bool = False
    """True where the cancel of its training had been asked for: it is registered and waits for a person."""


def open_activation(session: Session, model_id: int) -> Activation | None:
    """The activation in force now."""
    return session.scalars(
        select(Activation).where(Activation.model_id == model_id, Activation.active_to.is_(None))
    ).one_or_none()


def activate_trained(session: Session, model: UserModel, version: ModelVersion, now: datetime) -> Activated:
    """Serve a freshly verified version, unless a person pinned the one in force.

    The caller has locked the model row, which makes this a compare-and-set.
    """
    current = open_activation(session, model.id)
    if current is not None and current.pinned and current.version_id != version.id:
        return Activated(version.id, changed=False, kept_pinned=True)
    return activate(
        session,
        model,
        version,
        actor="finalisation",
        reason=f"training run {version.training_run_id} verified",
        now=now,
        # Verifying the very version that a person pinned must not unpin it.
        pinned=current is not None and current.pinned,
    )


def activate(
    session: Session,
    model: UserModel,
    version: ModelVersion,
    *,
    actor: str,
    reason: str,
    now: datetime,
    pinned: bool = False,
    action: str = "activate",
    restores_id: int | None = None,
    tell: bool = True,
) -> Activated:
    """Serve `version` from now on and write it into the history. Idempotent.

    The caller has locked the model row. `action` is what the audit log calls it; `restores_id` is the
    earlier activation that a rollback goes back to; without `tell` the application does not hear of it.
    """
    current = open_activation(session, model.id)
    if current is not None and current.version_id == version.id and current.pinned == pinned:
        _serve(session, model, version, now)
        return Activated(version.id, changed=False)
    moment = now
    if current is not None:
        # Another machine's clock may be ahead of ours: an activation never ends before it began.
        moment = max(now, current.active_from)
        current.active_to = moment
        # The partial unique index must see the old one closed before the new one opens.
        session.flush()
    session.add(
        Activation(
            model_id=model.id,
            version_id=version.id,
            active_from=moment,
            actor=actor,
            reason=reason,
            pinned=pinned,
            restores_id=restores_id,
        )
    )
    _serve(session, model, version, now)
    if tell and (current is None or current.version_id != version.id):
        session.add(Callback(**version_changed(model, version, reason, now)))
    session.add(
        AuditEntry(
            at=now,
            actor=actor,
            action=action,
            subject=model.model_key,
            details={"version": version.number, "reason": reason, "pinned": pinned},
        )
    )
    return Activated(version.id, changed=True)


def serve_again(
    session: Session, model: UserModel, version: ModelVersion, *, actor: str, reason: str, now: datetime
) -> None:
    """Show the weights that a version has now, where it is the one that is served. The caller has locked the model.

    A row that serves another than the history says is drift, and not settled here.
    """
    session.flush()
    current = open_activation(session, model.id)
    if current is None or current.version_id != version.id:
        return
    if model.replicate_version_id == version.provider_version:
        activate(session, model, version, actor=actor, reason=reason, now=now, pinned=current.pinned)


def _serve(session: Session, model: UserModel, version: ModelVersion, now: datetime) -> None:
    if version.provider_version is not None:
        model.replicate_model_id = version.provider_version.partition(":")[0]
    model.replicate_version_id = version.provider_version
    model.lora_weights_url = version.weights_url
    model.lora_scale = version.lora_scale
    model.training_status, model.training_progress = "completed", 100
    model.failure_reason = None
    model.completed_at = version.trained_at or now
    model.updated_at = now
    user = session.get_one(User, model.user_id)
    if user.active_model_id is None or _trained_later(session, user.active_model_id, model, version):
        user.active_model_id = model.id


def _trained_later(session: Session, active_id: int, model: UserModel, version: ModelVersion) -> bool:
    """Whether the version makes its model the one that its user completed last, which is the one they generate with."""
    if active_id == model.id:
        return False
    active = session.get_one(UserModel, active_id)
    if active.training_status != "completed" or active.completed_at is None:
        return True
    return version.trained_at is not None and version.trained_at > active.completed_at
