"""Replacing what models serve, many in one transaction: each both fields with their history, or nothing.

A compare-and-set: a model whose row or history has changed since it was read is left alone. No query per model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.tables import (
    Activation,
    AuditEntry,
    ModelVersion,
    User,
    UserModel,
    VersionAlias,
)
from lora_pipeline.identity import VersionRef
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.versions.activating_many import NewActivation, activate_many, insert_many
from lora_pipeline.versions.formats import weights_problem
from lora_pipeline.versions.sync_targets import SyncTarget


@dataclass(frozen=True)
class Replacement:
    """What one model is to serve from now on."""

    target: SyncTarget
    version: VersionRef
    """With owner and name."""
    weights_url: str | None = field(repr=False)
    """Of this very version, word for word; None where no training is known that made it."""
    training_id: str | None
    trained_at: datetime | None
    reason: str

    @cached_property
    def qualified(self) -> str:
        """`owner/name:hash`."""
        return self.version.qualified


@dataclass(frozen=True)
class Replaced:
    """What became of one replacement."""

    done: bool
    number: int | None = None
    refused: str | None = None
    """Why nothing was changed."""


@dataclass(frozen=True)
class _Entry:
    """A version that the registry must have."""

    target: SyncTarget
    qualified: str
    weights_url: str | None = field(repr=False)
    training_id: str | None
    trained_at: datetime | None


class Replacer:
    """One transaction's work over at most some hundred models. `session` is a writing one."""

    def __init__(self, session: Session, *, actor: str, simulated: bool, now: datetime) -> None:
        self._session = session
        self._actor = actor
        self._simulated = simulated
        self._now = now
        self._models: dict[int, UserModel] = {}
        self._users: Sequence[User] = ()
        self._open: dict[int, Activation] = {}
        self._versions: dict[str, ModelVersion] = {}
        self._numbers: dict[int, int] = {}

    def replace(self, replacements: Sequence[Replacement]) -> dict[int, Replaced]:
        """Serve what each says; by model id. A version that is registered already is found, not made again."""
        self._lock_and_read(replacements)
        refusals = {one.target.model_id: self._refusal(one) for one in replacements}
        accepted = [one for one in replacements if refusals[one.target.model_id] is None]
        past = [entry for one in accepted if (entry := self._served_before(one)) is not None]
        wanted = [
            _Entry(one.target, one.qualified, one.weights_url, one.training_id, one.trained_at)
            for one in accepted
        ]
        self._register([*past, *wanted])
        self._begin_histories(past)
        if accepted:
            changes = [self._activation(one) for one in accepted]
            activate_many(self._session, changes, actor=self._actor, now=self._now)
            insert_many(self._session, AuditEntry, [self._audit(one) for one in accepted])
        return {
            one.target.model_id: Replaced(False, refused=refused)
            if (refused := refusals[one.target.model_id]) is not None
            else Replaced(True, self._versions[one.qualified].number)
            for one in replacements
        }

    def _lock_and_read(self, replacements: Sequence[Replacement]) -> None:
        session, ids = self._session, sorted(one.target.model_id for one in replacements)
        models = select(UserModel).where(UserModel.id.in_(ids)).order_by(UserModel.id).with_for_update()
        self._models = {model.id: model for model in session.scalars(models)}
        # Kept, so that serving a version finds its user without a query.
        users = {model.user_id for model in self._models.values()}
        self._users = session.scalars(select(User).where(User.id.in_(users))).all()
        opened = select(Activation).where(Activation.model_id.in_(ids), Activation.active_to.is_(None))
        self._open = {one.model_id: one for one in session.scalars(opened)}
        texts = {one.qualified for one in replacements}
        texts.update(filter(None, (one.target.stored.canonical_version for one in replacements)))
        self._read_versions(texts)
        highest = select(ModelVersion.model_id, func.max(ModelVersion.number)).group_by(ModelVersion.model_id)
        rows = session.execute(highest.where(ModelVersion.model_id.in_(ids)))
        self._numbers = {row[0]: row[1] for row in rows}

    def _read_versions(self, texts: Collection[str]) -> None:
        known = select(ModelVersion).where(ModelVersion.provider_version.in_(texts))
        self._versions |= {str(version.provider_version): version for version in self._session.scalars(known)}

    def _refusal(self, one: Replacement) -> str | None:
        model, opened = self._models.get(one.target.model_id), self._open.get(one.target.model_id)
        if model is None:
            return "the model was deleted meanwhile"
        unchanged = (
            model.replicate_version_id == one.target.version
            and model.replicate_model_id == one.target.provider_model
            and (opened.id if opened else None) == one.target.activation_id
            and (opened.pinned if opened else False) == one.target.pinned
        )
        if not unchanged:
            return "its version was changed by somebody else meanwhile; nothing was overwritten"
        known = self._versions.get(one.qualified)
        if known is not None and known.model_id != model.id:
            return f"this version is registered with another model (its id here is {known.model_id})"
        return None

    def _served_before(self, one: Replacement) -> _Entry | None:
        """What was served before the history began: registered too, so that a rollback finds it."""
        target = one.target
        version, canonical = target.stored.version, target.stored.canonical_version
        if target.activation_id is not None or version is None or canonical is None:
            return None
        known = self._versions.get(canonical)
        if known is not None and known.model_id != target.model_id:
            return None
        if version.hash == one.version.hash:
            return _Entry(target, canonical, one.weights_url, one.training_id, target.completed_at)
        invented = weights_problem(target.weights_url, version) is not None
        return _Entry(target, canonical, None if invented else target.weights_url, None, target.completed_at)

    def _register(self, entries: Sequence[_Entry]) -> None:
        """Make what is new, complete what lacks weights, and note every name that it goes by."""
        new: dict[str, dict[str, Any]] = {}
        for entry in entries:
            known = self._versions.get(entry.qualified)
            if known is None and entry.qualified not in new:
                new[entry.qualified] = self._row(entry)
            elif known is not None and entry.weights_url and _lacks_weights(known):
                known.weights_url, known.weights_state = entry.weights_url, "unverified"
                known.provenance = known.provenance | {"weights": _weights_source(entry)}
                known.updated_at = self._now
        if new:
            insert_many(self._session, ModelVersion, list(new.values()))
            ids = select(ModelVersion.id, ModelVersion.provider_version)
            found = self._session.execute(ids.where(ModelVersion.provider_version.in_(new)))
            for version_id, qualified in found:
                # Known by what was just written: reading the rows back would double the work.
                self._versions[str(qualified)] = ModelVersion(id=version_id, **new[str(qualified)])
        self._alias(entries)

    def _row(self, entry: _Entry) -> dict[str, Any]:
        model = self._models[entry.target.model_id]
        self._numbers[model.id] = number = self._numbers.get(model.id, 0) + 1
        return {
            "model_id": model.id,
            "number": number,
            "provider": "replicate",
            "provider_version": entry.qualified,
            "weights_url": entry.weights_url,
            "weights_state": "unverified" if entry.weights_url else "missing",
            "trigger_word": model.trigger_word,
            "lora_scale": model.lora_scale,
            "parameters": {},
            "provenance": {
                "provider_version": "sync: the provider's versions of this model",
                "weights": _weights_source(entry),
                "trigger_word": "the model's",
            },
            "simulated": self._simulated,
            "trained_at": entry.trained_at,
            "created_at": self._now,
            "updated_at": self._now,
        }

    def _alias(self, entries: Sequence[_Entry]) -> None:
        rows = []
        for entry in entries:
            version_id = self._versions[entry.qualified].id
            names = [("provider_version", entry.qualified)]
            if entry.training_id:
                names.append(("training_id", f"replicate:{entry.training_id}"))
            rows += [
                {"kind": kind, "alias": alias, "version_id": version_id, "created_at": self._now}
                for kind, alias in names
            ]
        insert_unless_there(self._session, VersionAlias, ["kind", "alias"], rows)

    def _begin_histories(self, past: Sequence[_Entry]) -> None:
        rows = [
            {
                "model_id": entry.target.model_id,
                "version_id": self._versions[entry.qualified].id,
                "active_from": min(
                    entry.trained_at or self._models[entry.target.model_id].created_at, self._now
                ),
                "actor": self._actor,
                "reason": "served before its history began",
                "pinned": False,
            }
            for entry in past
        ]
        if not rows:
            return
        insert_many(self._session, Activation, rows)
        ids = [entry.target.model_id for entry in past]
        opened = select(Activation).where(Activation.model_id.in_(ids), Activation.active_to.is_(None))
        self._open |= {one.model_id: one for one in self._session.scalars(opened)}

    def _audit(self, one: Replacement) -> dict[str, Any]:
        version = self._versions[one.qualified]
        details = {
            "before": without_secrets(one.target.version) if one.target.version else None,
            "after": one.qualified,
            "version": version.number,
            "weights": version.weights_state,
            "training": one.training_id,
            "reason": one.reason,
        }
        subject = one.target.model_key
        return {
            "at": self._now,
            "actor": self._actor,
            "action": "sync",
            "subject": subject,
            "details": details,
        }

    def _activation(self, one: Replacement) -> NewActivation:
        model_id = one.target.model_id
        return NewActivation(
            self._models[model_id],
            self._versions[one.qualified],
            self._open.get(model_id),
            one.reason,
            pinned=one.target.pinned,
        )


def _lacks_weights(version: ModelVersion) -> bool:
    return not version.weights_url or version.weights_state == "missing"


def _weights_source(entry: _Entry) -> str:
    if not entry.weights_url:
        return "not known"
    if entry.training_id is None:
        return "as it stood in user_models, unverified"
    return f"replicate training {entry.training_id}, word for word, unverified"
