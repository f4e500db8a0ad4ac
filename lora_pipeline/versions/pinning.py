"""A person's deliberate choices: activate a version, pin it, unpin it, roll back.

What a person chose against the newest version is pinned, so that neither a retrain nor the night's sync takes
it back. Each choice is one transaction under the model's row lock, written into history and audit log with
who and why; what was chosen already changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.observing import refuse_while_observing
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ModelVersion, UserModel
from lora_pipeline.versions.activation import activate, open_activation
from lora_pipeline.versions.formats import read_stored
from lora_pipeline.versions.lookup import find_model
from lora_pipeline.versions.merged_away import still_stands
from lora_pipeline.versions.rollbacks import PastActivation, step_back
from lora_pipeline.versions.version_lookup import find_version


class ChoiceRefused(Exception):
    """This choice cannot be made; the message says why and what to do. Nothing was changed."""


@dataclass(frozen=True)
class Choice:
    """What a choice did."""

    model_key: str
    version: int
    """The version that is served now."""
    changed: bool
    pinned: bool
    previous: int | None
    """The version that was served before, where it was another one."""
    explanation: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chooser:
    """Who chooses, why and when."""

    actor: str
    reason: str
    now: datetime


def activate_version(database: Database, model: str, version: str, by: Chooser) -> Choice:
    """Serve this version. Anything but the newest is pinned; the newest is not.

    Raises ModelNotFound, VersionNotFound, and ChoiceRefused where its weights are missing.
    """
    with database.begin() as session:
        row = _lock(session, model)
        wanted = find_version(session, row, version)
        if wanted.weights_state == "missing":
            raise ChoiceRefused(
                f"{row.model_key} cannot serve V{wanted.number}: its weights are missing. "
                f"Choose another: lora-pipeline versions {row.model_key}"
            )
        current = open_activation(session, row.id)
        kept_pin = current is not None and current.pinned and current.version_id == wanted.id
        pinned = kept_pin or wanted.number != _newest(session, row.id)
        return _choose(session, row, wanted, by, action="activate", pinned=pinned)


def pin_model(database: Database, model: str, by: Chooser) -> Choice:
    """Keep the version that is served now, whatever is trained or found later. Raises ChoiceRefused."""
    with database.begin() as session:
        row = _lock(session, model)
        current, served = _served(session, row)
        _require_same(row, served)
        return _choose(session, row, served, by, action="pin", pinned=True, restores_id=current.restores_id)


def unpin_model(database: Database, model: str, by: Chooser) -> Choice:
    """Let the next retrain or sync replace the served version again; it is served until then."""
    with database.begin() as session:
        row = _lock(session, model)
        current, served = _served(session, row)
        _require_same(row, served)
        return _choose(
            session, row, served, by, action="unpin", pinned=False, restores_id=current.restores_id
        )


def roll_back(database: Database, model: str, by: Chooser, *, only_from: str | None = None) -> Choice:
    """Serve, pinned, the version that was served before the present one.

    Repeated, it goes further back and never forth again. Versions whose weights are missing are passed over.
    With `only_from` nothing is changed unless that version is the one being served: two people who roll back
    the same bad version at once go one step, not two.
    """
    with database.begin() as session:
        row = _lock(session, model)
        current, served = _served(session, row)
        if only_from is not None and find_version(session, row, only_from).id != served.id:
            return Choice(
                row.model_key,
                served.number,
                changed=False,
                pinned=current.pinned,
                previous=None,
                explanation=f"V{served.number} is served since {current.active_from:%Y-%m-%d %H:%M} UTC "
                f"({current.actor}: {current.reason}); nothing was changed",
            )
        target, passed = _before(session, row)
        choice = _choose(
            session,
            row,
            session.get_one(ModelVersion, target.version_id),
            by,
            action="rollback",
            pinned=True,
            restores_id=target.place,
        )
        skipped = tuple(f"V{number} was passed over: its weights are missing" for number in passed)
        return replace(choice, warnings=skipped + choice.warnings)


def _lock(session: Session, model: str) -> UserModel:
    """The model that is meant, its row locked: choices, retrains and syncs of one model wait in line."""
    found = find_model(session, model)
    return session.get_one(UserModel, found.id, with_for_update=True, populate_existing=True)


def _served(session: Session, model: UserModel) -> tuple[Activation, ModelVersion]:
    current = open_activation(session, model.id)
    if current is None:
        raise ChoiceRefused(
            f"{model.model_key} serves no registered version yet. "
            f"See what it has: lora-pipeline versions {model.model_key}"
        )
    return current, session.get_one(ModelVersion, current.version_id)


def _require_same(model: UserModel, served: ModelVersion) -> None:
    """Refuse where the row was changed past the history: a pin must not quietly serve another version."""
    stored = read_stored(model.replicate_model_id, model.replicate_version_id).canonical_version
    if stored is not None and stored != served.provider_version:
        raise ChoiceRefused(
            f"{model.model_key} serves {stored}, which its history does not know; V{served.number} is active there. "
            f"Say which is meant: lora-pipeline activate {model.model_key} VERSION, or: lora-pipeline sync "
            f"{model.model_key}"
        )


def _newest(session: Session, model_id: int) -> int | None:
    newest = select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model_id, still_stands())
    return session.scalar(newest)


def _before(session: Session, model: UserModel) -> tuple[PastActivation, tuple[int, ...]]:
    """The activation to go back to, and the numbers of versions that were passed over."""
    rows = session.execute(
        select(Activation, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Activation.version_id)
        .where(Activation.model_id == model.id)
    )
    step = step_back(
        [
            PastActivation(
                activation.id,
                version.id,
                version.number,
                version.weights_state != "missing",
                activation.restores_id,
            )
            for activation, version in rows
        ]
    )
    if step.to is not None:
        return step.to, step.passed_over
    without = ", ".join(f"V{number}" for number in step.passed_over)
    raise ChoiceRefused(
        f"{model.model_key} has served no other version{f' with weights ({without} have none)' if without else ''} "
        f"before this one. Choose one: lora-pipeline activate {model.model_key} VERSION"
    )


def _choose(
    session: Session,
    model: UserModel,
    version: ModelVersion,
    by: Chooser,
    *,
    action: str,
    pinned: bool,
    restores_id: int | None = None,
) -> Choice:
    refuse_while_observing(session, f"{model.model_key} serves what it served")
    current = open_activation(session, model.id)
    before = session.get(ModelVersion, current.version_id) if current is not None else None
    done = activate(
        session,
        model,
        version,
        actor=by.actor,
        reason=by.reason,
        now=by.now,
        pinned=pinned,
        action=action,
        restores_id=restores_id,
    )
    replaced = before.number if before is not None and before.id != version.id else None
    return Choice(
        model.model_key,
        version.number,
        changed=done.changed,
        pinned=pinned,
        previous=replaced,
        explanation=_explain(session, model, version, changed=done.changed, pinned=pinned),
        warnings=_warnings(version),
    )


def _explain(
    session: Session, model: UserModel, version: ModelVersion, *, changed: bool, pinned: bool
) -> str:
    served = f"V{version.number} is served" if changed else f"V{version.number} was served like this already"
    newest = _newest(session, model.id)
    if pinned:
        return f"{served}, pinned: no retrain or sync replaces it. Release it: lora-pipeline unpin {model.model_key}"
    if newest is not None and newest != version.number:
        return (
            f"{served} until the next retrain or sync; the newest is V{newest}. "
            f"Serve that now: lora-pipeline activate {model.model_key} V{newest}"
        )
    return served


def _warnings(version: ModelVersion) -> tuple[str, ...]:
    if version.weights_state == "unverified":
        return (f"the weights of V{version.number} have not been downloaded and verified yet",)
    return ()
