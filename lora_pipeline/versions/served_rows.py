"""Reading what a model serves in one query: its row, its open activation with its version, and its last check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import Activation, ModelVersion, ResolveCheck, UserModel
from lora_pipeline.identity import VersionRef
from lora_pipeline.versions.first_call import LastCheck
from lora_pipeline.versions.formats import KNOWN_TRAINERS
from lora_pipeline.versions.lookup import find_model, find_model_or_owner
from lora_pipeline.versions.served import (
    ModelRow,
    RegisteredVersion,
    ServedLora,
    registered_lora,
    served_lora,
    unregistered_version,
)
from lora_pipeline.versions.version_lookup import find_version


@dataclass(frozen=True)
class ServedModel:
    """A model and what it serves."""

    model_id: int
    model_key: str
    comparable: bool
    """Whether a provider could be asked for its versions: RunPod keeps none, so nothing there is ever outdated."""
    active_since: datetime | None
    lora: ServedLora | None
    """None where it serves nothing."""
    last_check: LastCheck | None


_ROW_COLUMNS = (
    UserModel.model_key,
    UserModel.replicate_model_id,
    UserModel.replicate_version_id,
    UserModel.lora_weights_url,
    UserModel.lora_scale,
    UserModel.trigger_word,
)
_VERSION_COLUMNS = (
    ModelVersion.number,
    ModelVersion.provider_version,
    ModelVersion.weights_url,
    ModelVersion.weights_state,
    ModelVersion.trigger_word,
    ModelVersion.lora_scale,
    ModelVersion.simulated,
    ModelVersion.provider,
)
_ROW, _VERSION = len(_ROW_COLUMNS), len(_VERSION_COLUMNS) + 2
_SERVED = (
    select(
        UserModel.id,
        *_ROW_COLUMNS,
        *_VERSION_COLUMNS,
        Activation.active_from,
        Activation.pinned,
        ResolveCheck.asked_in,
        ResolveCheck.asked_at,
        ResolveCheck.answered_in,
        ResolveCheck.answered_at,
        ResolveCheck.verdict,
    )
    .select_from(UserModel)
    .outerjoin(Activation, (Activation.model_id == UserModel.id) & Activation.active_to.is_(None))
    .outerjoin(ModelVersion, ModelVersion.id == Activation.version_id)
    .outerjoin(ResolveCheck, ResolveCheck.model_id == UserModel.id)
    .where(UserModel.model_key == bindparam("model_key"))
)
"""Built once: building a statement costs more than running this one."""


def read_served(session: Session, model: str, trainers: Sequence[VersionRef] = KNOWN_TRAINERS) -> ServedModel:
    """What the model serves that `model` means, in whatever way it names it. Raises ModelNotFound."""
    key = model.strip()
    found = session.execute(_SERVED, {"model_key": key}).one_or_none()
    if found is None:
        key = find_model(session, model).model_key
        found = session.execute(_SERVED, {"model_key": key}).one()
    model_id, *values = found
    row = ModelRow(*values[:_ROW])
    version, last = values[_ROW : _ROW + _VERSION], values[_ROW + _VERSION :]
    active = RegisteredVersion(*version) if version[0] is not None else None
    wanted = unregistered_version(row, active, trainers)
    other = _registered(session, model_id, wanted) if wanted is not None else None
    return ServedModel(
        model_id,
        row.model_key,
        comparable=_comparable(row, active),
        active_since=active.active_since if active is not None else None,
        lora=served_lora(row, active, other, trainers),
        last_check=LastCheck(*last) if last[0] is not None else None,
    )


def read_named(session: Session, model: str, version: str | None) -> ServedLora:
    """The version of a model that `version` means, as it would be served; without one, the version that `model` is.

    Raises ModelNotFound and VersionNotFound.
    """
    row = find_model_or_owner(session, model)
    found = find_version(session, row, version or model)
    columns: Any = session.execute(
        select(*_VERSION_COLUMNS, Activation.active_from, func.coalesce(Activation.pinned, False))
        .outerjoin(Activation, (Activation.version_id == ModelVersion.id) & Activation.active_to.is_(None))
        .where(ModelVersion.id == found.id)
    ).one()
    return registered_lora(row.model_key, RegisteredVersion(*columns))


def _comparable(row: ModelRow, active: RegisteredVersion | None) -> bool:
    if active is not None and active.provider != "replicate":
        return False
    return row.replicate_model_id is not None or row.replicate_version_id is not None


def _registered(session: Session, model_id: int, provider_version: str) -> RegisteredVersion | None:
    found: Any = session.execute(
        select(*_VERSION_COLUMNS).where(
            ModelVersion.provider_version == provider_version, ModelVersion.model_id == model_id
        )
    ).one_or_none()
    return RegisteredVersion(*found) if found is not None else None
