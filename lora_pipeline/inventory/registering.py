"""Making versions of LoRAs that lie in a bucket and that nothing names: a person says whose they are.

No file name decides that, and no inventory does by itself: see `back_fill`. What is registered is served by nobody
until a person activates it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Artifact, AuditEntry, InventoryObject, ModelVersion, UserModel
from lora_pipeline.identity import (
    IdentityError,
    ObjectUrlRules,
    parse_version_name,
)
from lora_pipeline.image_sets.models import ModelDescription, ensure_model, take_trigger_word
from lora_pipeline.inventory.attaching import Known, ref_of, settle, shown_address
from lora_pipeline.inventory.back_fill import TOKEN_CLAIM, Standing, claimed_job
from lora_pipeline.inventory.back_fill_lookup import addresses_in_other_spellings
from lora_pipeline.inventory.legacy_versions import PROVIDER
from lora_pipeline.inventory.named_objects import RegistrationRefused, files_at
from lora_pipeline.inventory.registry_versions import IN_THE_HEADER, THE_MODELS, WHEN_WRITTEN
from lora_pipeline.inventory.renames import configured_rules
from lora_pipeline.versions.lookup import find_model
from lora_pipeline.versions.registry import next_number
from lora_pipeline.versions.registry_event import owe_registry

_KOHYA_NAMES = {
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
_SETTLED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Registered:
    """An object and its version."""

    object: str
    version: str
    """Such as `V7`."""
    model: str
    """The model's key."""
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
    if trigger_word is not None:
        _check_trigger_word(trigger_word.strip())
    rules = configured_rules(connections.settings)
    now = connections.now()
    with connections.database.begin() as session:
        owner = _model(session, model, described, trigger_word, now)
        rows, copies = files_at(session, addresses, rules)
        refs = frozenset(rules.renamed(ref_of(row)) for row in (*rows, *copies))
        known = Known(rules, addresses_in_other_spellings(session, refs, rules), now)
        session.refresh(owner, with_for_update=True)
        registered = _register_all(session, owner, rows, known, trigger_word, actor)
        # The same LoRA in other places: an import that names one of those must find this version.
        settle(session, copies, known)
    if any(one.new for one in registered):
        owe_registry(connections, "register")
    return registered


def header_parameters(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The training parameters that a LoRA file's own header tells, by the names that trainings here have."""
    told = {name: metadata.get(key, "").strip() for name, key in _KOHYA_NAMES.items()}
    return {name: _value(text) for name, text in told.items() if text not in ("", "None", "null")}


def _check_trigger_word(word: str) -> None:
    if not 0 < len(word) <= _LONGEST_TRIGGER_WORD:
        raise RegistrationRefused(
            f"got a trigger word of {len(word)} characters; expected 1 to {_LONGEST_TRIGGER_WORD}"
        )
    if not word.isprintable():
        raise RegistrationRefused("got a trigger word with control characters; expected one line of text")


def _model(
    session: Session, text: str, described: ModelDescription | None, trigger_word: str | None, now: datetime
) -> UserModel:
    if described is None:
        return find_model(session, text)
    # Only its key: a user of that name may have other models.
    known = session.scalars(select(UserModel.id).where(UserModel.model_key == text)).first()
    model = ensure_model(session, text, described, now)
    if known is None and trigger_word is not None:
        take_trigger_word(session, model, trigger_word.strip())
    others = described.user_id not in (None, model.user_id)
    if others or described.model_type != model.model_type:
        raise RegistrationRefused(
            f"model {model.model_key!r} is there already, as {model.model_type}{' of another user' if others else ''}. "
            "Leave --type and --user away where it is meant, or give another --model"
        )
    return model


def _register_all(
    session: Session,
    model: UserModel,
    rows: Sequence[InventoryObject],
    known: Known,
    trigger_word: str | None,
    actor: str,
) -> list[Registered]:
    found: dict[int, Registered] = {}
    for batch in _batches(rows, known.rules):
        some = [rows[index] for index in batch]
        found |= zip(batch, _register(session, model, some, known, trigger_word, actor), strict=True)
    return [found[index] for index in range(len(rows))]


def _batches(rows: Sequence[InventoryObject], rules: ObjectUrlRules) -> list[list[int]]:
    """Indices of rows that can be settled together: none knows anything that another may be the same LoRA by."""
    batches: list[list[int]] = []
    sure: dict[Hashable, int] = {}
    for index, row in enumerate(rows):
        job = claimed_job(row.claims)
        marks: list[Hashable] = [("row", row.id), ("artifact", row.artifact_id), rules.renamed(ref_of(row))]
        marks += [("token", row.claims.get(TOKEN_CLAIM, row.id)), ("job", job.base if job else row.id)]
        batch = max(sure.get(mark, 0) for mark in marks)
        while batch < len(batches) and len(batches[batch]) >= _SETTLED_AT_ONCE:
            batch += 1
        if batch == len(batches):
            batches.append([])
        batches[batch].append(index)
        sure |= dict.fromkeys(marks, batch + 1)
    return batches


def _register(
    session: Session,
    model: UserModel,
    rows: Sequence[InventoryObject],
    known: Known,
    trigger_word: str | None,
    actor: str,
) -> list[Registered]:
    settle(session, rows, known)
    made: dict[int, ModelVersion] = {}
    for row in rows:
        if row.state == Standing.UNREGISTERED:
            made[row.id] = _version(session, model, row, trigger_word, actor, known.now)
            session.add(made[row.id])
            session.flush()
        elif row.state != Standing.ATTACHED:
            why = "it was not read yet. Read it: lora-pipeline inventory --apply"
            raise RegistrationRefused(
                f"{shown_address(row)} cannot be registered; it is {row.state}: {row.reason or why}"
            )
    settle(session, [row for row in rows if row.id in made], known)
    registered = []
    for row in rows:
        version = made.get(row.id)
        if version is None:
            name = _name_in(session, model, row)
            registered.append(Registered(shown_address(row), name, model.model_key, new=False))
            continue
        if row.version_id != version.id:
            raise RegistrationRefused(f"{shown_address(row)} cannot be registered: {row.reason}")
        details = {"version": version.number, "object": shown_address(row)}
        session.add(
            AuditEntry(at=known.now, actor=actor, action="register", subject=model.model_key, details=details)
        )
        registered.append(Registered(shown_address(row), f"V{version.number}", model.model_key, new=True))
    return registered


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
    session: Session,
    model: UserModel,
    row: InventoryObject,
    trigger_word: str | None,
    actor: str,
    now: datetime,
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
        provenance={
            "parameters": IN_THE_HEADER,
            "trained_at": WHEN_WRITTEN,
            "trigger_word": THE_MODELS if trigger_word is None else actor,
        },
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
