"""Making versions of LoRAs that lie in a bucket and that nothing names: a person says whose they are.

No file name decides that, and no inventory does by itself: see `back_fill`. What is registered is served by nobody
until a person activates it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Artifact, AuditEntry, InventoryObject, ModelVersion, UserModel
from lora_pipeline.identity import (
    IdentityError,
    ObjectAddress,
    ObjectRef,
    ObjectUrlRules,
    parse_object_url,
    parse_version_name,
)
from lora_pipeline.identity.errors import shown
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.attaching import Known, ref_of, settle, shown_address
from lora_pipeline.inventory.back_fill import Standing, claimed_job
from lora_pipeline.inventory.back_fill_lookup import addresses_in_other_spellings
from lora_pipeline.inventory.legacy_versions import PROVIDER
from lora_pipeline.inventory.renames import configured_rules
from lora_pipeline.versions.lookup import ModelNotFound, find_model
from lora_pipeline.versions.registry import next_number
from lora_pipeline.versions.registry_event import owe_registry

_IN_THE_HEADER = {
    "network_dim": "ss_network_dim",
    "network_alpha": "ss_network_alpha",
    "learning_rate": "ss_learning_rate",
    "max_train_steps": "ss_max_train_steps",
    "lr_scheduler": "ss_lr_scheduler",
    "lr_warmup_steps": "ss_lr_warmup_steps",
    "optimizer_type": "ss_optimizer",
}
"""Parameter → what kohya's trainer calls it in a file's header."""
_LONGEST_TRIGGER_WORD = 64


class RegistrationRefused(Exception):
    """An object cannot become a version; the message says why and what to do. Nothing was registered."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An object and its version."""

    object: str
    version: str
    """Such as `V7`."""
    new: bool
    """False where the model had it already."""


def register_found(
    connections: Connections,
    model: str,
    addresses: Sequence[str],
    *,
    actor: str,
    trigger_word: str | None = None,
    described: ModelDescription | None = None,
) -> list[Registered]:
    """Make a version of `model` for each object that the inventory found unregistered: all of them, or none.

    The number in an object's name is the version's where it is free, else the next one is. Parameters are those that
    its header tells; the trigger word is the model's, where none is given. A model that does not exist is made where
    it is `described`. Raises RegistrationRefused, ModelNotFound, IntakeError.
    """
    if trigger_word is not None and not 0 < len(trigger_word.strip()) <= _LONGEST_TRIGGER_WORD:
        raise RegistrationRefused(
            f"got a trigger word of {len(trigger_word.strip())} characters; expected 1 to {_LONGEST_TRIGGER_WORD}"
        )
    rules = configured_rules(connections.settings)
    now = connections.now()
    with connections.database.begin() as session:
        owner = _model(session, model, described, now)
        rows = [_row(session, address, rules) for address in dict.fromkeys(addresses)]
        refs = frozenset(rules.renamed(ref_of(row)) for row in rows)
        known = Known(rules, addresses_in_other_spellings(session, refs, rules), now)
        session.refresh(owner, with_for_update=True)
        registered = [_register(session, owner, row, known, trigger_word, actor) for row in rows]
    if any(one.new for one in registered):
        owe_registry(connections, "register")
    return registered


def header_parameters(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The training parameters that a LoRA file's own header tells, by the names that trainings here have."""
    told = {name: metadata.get(key, "").strip() for name, key in _IN_THE_HEADER.items()}
    return {name: _value(text) for name, text in told.items() if text not in ("", "None", "null")}


def _model(session: Session, text: str, described: ModelDescription | None, now: datetime) -> UserModel:
    try:
        return find_model(session, text)
    except ModelNotFound:
        if described is None:
            raise
        return ensure_model(session, text, described, now)


def _row(session: Session, address: str, rules: ObjectUrlRules) -> InventoryObject:
    """The file that an address in any spelling leads to, locked."""
    for place in _places(address, rules):
        statement = select(InventoryObject).where(
            InventoryObject.namespace == place.namespace,
            InventoryObject.bucket == place.bucket,
            InventoryObject.key == place.key,
            InventoryObject.listed,
            InventoryObject.overwritten_at.is_(None),
            InventoryObject.deleted_at.is_(None),
        )
        row = session.scalars(statement.with_for_update()).first()
        if row is not None:
            return row
    raise RegistrationRefused(
        f"the inventory knows no LoRA file at {shown(address)}; expected the address of one that it lists. "
        "Look: lora-pipeline inventory --apply"
    )


def _places(address: str, rules: ObjectUrlRules) -> list[ObjectRef]:
    """Where the address leads: as it is written, and under today's name of a folder that was renamed."""
    try:
        parsed = parse_object_url(address, replace(rules, renames=()))
    except IdentityError as error:
        raise RegistrationRefused(str(error)) from error
    if not isinstance(parsed, ObjectAddress):
        return []
    return list(dict.fromkeys([parsed.ref, rules.renamed(parsed.ref)]))


def _register(
    session: Session,
    model: UserModel,
    row: InventoryObject,
    known: Known,
    trigger_word: str | None,
    actor: str,
) -> Registered:
    settle(session, [row], known)
    if row.state == Standing.ATTACHED:
        return Registered(shown_address(row), _name_in(session, model, row), new=False)
    if row.state != Standing.UNREGISTERED:
        why = "it was not read yet. Read it: lora-pipeline inventory --apply"
        raise RegistrationRefused(
            f"{shown_address(row)} cannot be registered; it is {row.state}: {row.reason or why}"
        )
    version = _version(session, model, row, trigger_word, known.now)
    session.add(version)
    session.flush()
    settle(session, [row], known)
    if row.version_id != version.id:
        raise RegistrationRefused(f"{shown_address(row)} cannot be registered: {row.reason}")
    details = {"version": version.number, "object": shown_address(row)}
    session.add(
        AuditEntry(at=known.now, actor=actor, action="register", subject=model.model_key, details=details)
    )
    return Registered(shown_address(row), f"V{version.number}", new=True)


def _name_in(session: Session, model: UserModel, row: InventoryObject) -> str:
    """The name of the version that has the object already, where it is this model's."""
    version = session.get_one(ModelVersion, row.version_id)
    if version.model_id != model.id:
        raise RegistrationRefused(
            f"{shown_address(row)} cannot be registered for {model.model_key}: {row.reason}. One LoRA is one "
            "version; whose it is, lora-pipeline lineage tells"
        )
    return f"V{version.number}"


def _version(
    session: Session, model: UserModel, row: InventoryObject, trigger_word: str | None, now: datetime
) -> ModelVersion:
    artifact = session.get_one(Artifact, row.artifact_id)
    job = claimed_job(row.claims)
    return ModelVersion(
        model_id=model.id,
        number=_number(session, model, row),
        artifact_id=artifact.id,
        provider=PROVIDER if job is None else job.provider,
        weights_state="unverified",
        trigger_word=(trigger_word or model.trigger_word).strip(),
        lora_scale=1.0,
        parameters=header_parameters(artifact.header_metadata),
        provenance={"parameters": "the file's header", "trained_at": "when the object was written"},
        trained_at=row.modified,
        created_at=now,
        updated_at=now,
    )


def _number(session: Session, model: UserModel, row: InventoryObject) -> int:
    try:
        named = parse_version_name(row.key.rpartition("/")[2])
    except IdentityError:
        return next_number(session, model.id)
    taken = select(ModelVersion.id).where(ModelVersion.model_id == model.id, ModelVersion.number == named)
    return named if session.scalar(taken) is None else next_number(session, model.id)


def _value(text: str) -> Any:
    """A number where the text is one that can be stored."""
    try:
        found = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else text
