"""Replacing what models serve, many in one transaction: each both fields with their history, or nothing.

A compare-and-set: a model whose row or history has changed since it was read is left alone. No query per model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Activation, AuditEntry, ModelVersion, User, UserModel, VersionAlias
from lora_pipeline.identity import VersionRef
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.versions.activating_many import NewActivation, activate_many
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


@dataclass(frozen=True)
class Replaced:
    """What became of one replacement."""

    done: bool
    number: int | None = None
    refused: str | None = None
    """Why nothing was changed."""


class Replacer:
    """One transaction's work over at most some hundred models. `session` is a writing one."""

    def __init__(self, session: Session, *, actor: str, simulated: bool, now: datetime) -> None:
        self._session = session
        self._actor = actor
        self._simulated = simulated
        self._now = now
        self._models: dict[int, UserModel] = {}
        self._open: dict[int, Activation] = {}
        self._versions: dict[str, ModelVersion] = {}
        self._numbers: dict[int, int] = {}

    def replace(self, replacements: Sequence[Replacement]) -> dict[int, Replaced]:
        """Serve what each says; by model id. A version that is registered already is found, not made again."""
        self._lock_and_read(replacements)
        results: dict[int, Replaced] = {}
        accepted = []
        for one in replacements:
            refused = self._refusal(one)
            if refused:
                results[one.target.model_id] = Replaced(False, refused=refused)
            else:
                accepted.append(one)
        self._begin_histories(accepted)
        for one in accepted:
            self._register(one.target, one.version, one.weights_url, one.training_id, one.trained_at)
        self._session.flush()
        self._alias(accepted)
        changes = [self._activation(one) for one in accepted]
        activate_many(self._session, changes, actor=self._actor, now=self._now)
        for one in accepted:
            number = self._versions[one.version.qualified].number
            results[one.target.model_id] = Replaced(True, number)
        self._session.add_all(self._audit(one) for one in accepted)
        return results

    def _lock_and_read(self, replacements: Sequence[Replacement]) -> None:
        session, ids = self._session, sorted(one.target.model_id for one in replacements)
        models = select(UserModel).where(UserModel.id.in_(ids)).order_by(UserModel.id).with_for_update()
        self._models = {model.id: model for model in session.scalars(models)}
        # Loaded here, so that serving a version finds its user without a query.
        users = {model.user_id for model in self._models.values()}
        self._users = session.scalars(select(User).where(User.id.in_(users))).all()
        opened = select(Activation).where(Activation.model_id.in_(ids), Activation.active_to.is_(None))
        self._open = {one.model_id: one for one in session.scalars(opened)}
        texts = {one.version.qualified for one in replacements}
        texts.update(filter(None, (one.target.stored.canonical_version for one in replacements)))
        known = select(ModelVersion).where(ModelVersion.provider_version.in_(texts))
        self._versions = {str(version.provider_version): version for version in session.scalars(known)}
        highest = select(ModelVersion.model_id, func.max(ModelVersion.number)).group_by(ModelVersion.model_id)
        rows = session.execute(highest.where(ModelVersion.model_id.in_(ids)))
        self._numbers = {row[0]: row[1] for row in rows}

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
        known = self._versions.get(one.version.qualified)
        if known is not None and known.model_id != model.id:
            return f"this version is registered with another model (its id here is {known.model_id})"
        return None

    def _begin_histories(self, replacements: Sequence[Replacement]) -> None:
        """Register what was served before its history began, so that a rollback finds it."""
        begun = []
        for one in replacements:
            target, served = one.target, one.target.stored.canonical_version
            if target.activation_id is not None or served is None or one.target.stored.version is None:
                continue
            known = self._versions.get(served)
            if known is not None and known.model_id != target.model_id:
                continue
            url = None if weights_unknown(target) else target.weights_url
            self._register(target, one.target.stored.version, url, None, target.completed_at)
            begun.append((target, served))
        self._session.flush()
        for target, served in begun:
            model, version = self._models[target.model_id], self._versions[served]
            since = min(target.completed_at or model.created_at, self._now)
            opened = Activation(
                model_id=model.id,
                version_id=version.id,
                active_from=since,
                actor=self._actor,
                reason="served before its history began",
                pinned=False,
            )
            self._session.add(opened)
            self._open[model.id] = opened

    def _register(
        self,
        target: SyncTarget,
        ref: VersionRef,
        weights_url: str | None,
        training_id: str | None,
        trained_at: datetime | None,
    ) -> None:
        known = self._versions.get(ref.qualified)
        if known is not None:
            if weights_url and (not known.weights_url or known.weights_state == "missing"):
                known.weights_url, known.weights_state = weights_url, "unverified"
                known.provenance = known.provenance | {"weights": _weights_source(training_id)}
                known.updated_at = self._now
            return
        model = self._models[target.model_id]
        self._numbers[model.id] = number = self._numbers.get(model.id, 0) + 1
        version = ModelVersion(
            model_id=model.id,
            number=number,
            provider="replicate",
            provider_version=ref.qualified,
            weights_url=weights_url,
            weights_state="unverified" if weights_url else "missing",
            trigger_word=model.trigger_word,
            lora_scale=model.lora_scale,
            parameters={},
            provenance={
                "provider_version": "sync: the provider's versions of this model",
                "weights": _weights_source(training_id) if weights_url else "not known",
                "trigger_word": "the model's",
            },
            simulated=self._simulated,
            trained_at=trained_at,
            created_at=self._now,
            updated_at=self._now,
        )
        self._session.add(version)
        self._versions[ref.qualified] = version

    def _alias(self, replacements: Sequence[Replacement]) -> None:
        rows = []
        for one in replacements:
            version = self._versions[one.version.qualified]
            names = [("provider_version", one.version.qualified)]
            if one.training_id:
                names.append(("training_id", f"replicate:{one.training_id}"))
            rows += [
                {"kind": kind, "alias": alias, "version_id": version.id, "created_at": self._now}
                for kind, alias in names
            ]
        dialect = self._session.get_bind().dialect.name
        upsert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        if rows:
            statement = upsert(VersionAlias).on_conflict_do_nothing(index_elements=["kind", "alias"])
            self._session.execute(statement, rows)

    def _audit(self, one: Replacement) -> AuditEntry:
        version = self._versions[one.version.qualified]
        details = {
            "before": without_secrets(one.target.version) if one.target.version else None,
            "after": one.version.qualified,
            "version": version.number,
            "weights": version.weights_state,
            "training": one.training_id,
            "reason": one.reason,
        }
        subject = one.target.model_key
        return AuditEntry(at=self._now, actor=self._actor, action="sync", subject=subject, details=details)

    def _activation(self, one: Replacement) -> NewActivation:
        model_id = one.target.model_id
        return NewActivation(
            self._models[model_id],
            self._versions[one.version.qualified],
            self._open.get(model_id),
            one.reason,
            pinned=one.target.pinned,
        )


def weights_unknown(target: SyncTarget) -> bool:
    """Whether the address that a row stores cannot be that of its version's weights."""
    return weights_problem(target.weights_url, target.stored.version) is not None


def _weights_source(training_id: str | None) -> str:
    if training_id is None:
        return "as it stood in user_models, unverified"
    return f"replicate training {training_id}, word for word, unverified"
