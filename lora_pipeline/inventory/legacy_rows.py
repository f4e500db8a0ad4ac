"""One old entry as a row: a version with all its names, or a training run that led to none. Twice without effect."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    ModelVersion,
    TrainingRun,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.identity import IdentityError, ObjectUrlRules, object_uri, parse_version_name
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.inventory.entries import MERGED_IDS, Entry, address_of, is_empty, moment
from lora_pipeline.inventory.entry_defects import LOCAL_TIME, STUCK_AFTER, is_two_hours_ahead
from lora_pipeline.inventory.survivors import is_signed
from lora_pipeline.inventory.unifying import job_of
from lora_pipeline.versions.activation import activate, open_activation

PROVIDER = "runpod"
POLICY = "imported"
_LONGEST_ALIAS = 1100


class Loaded(NamedTuple):
    """A row, and whether it is a new one."""

    id: int
    new: bool


@dataclass(frozen=True)
class ImportedEntry:
    """An entry as it is loaded, with what other entries of its file say about it."""

    entry: Entry
    path: str
    written_at: datetime | None
    """When the bucket says that its object was written."""
    highest_named: int = 0
    """The highest version number that a name in its file has: free numbers begin behind it."""

    @property
    def id(self) -> str:
        return str(self.entry["id"]).strip()

    @property
    def status(self) -> object:
        return self.entry.get("status")

    @property
    def ids(self) -> list[str]:
        """Its id and those merged into it."""
        merged = self.entry.get(MERGED_IDS)
        return [
            self.id,
            *(one for one in (merged if isinstance(merged, list) else ()) if isinstance(one, str)),
        ]

    @property
    def parameters(self) -> dict[str, Any]:
        found = self.entry.get("parameters")
        return dict(found) if isinstance(found, dict) else {}

    @property
    def trigger_word(self) -> str | None:
        word = self.parameters.get("class_tokens")
        return word if isinstance(word, str) and 0 < len(word) <= 64 else None

    @property
    def started_at(self) -> datetime | None:
        return moment(self.entry.get("timestamp"))

    @property
    def ended_at(self) -> datetime | None:
        """When it ended: told by the entry, set right where that was local time, else by the bucket, else its start."""
        told = moment(self.entry.get("completedAt")) or moment(self.entry.get("failedAt"))
        if told is not None:
            return told - LOCAL_TIME if is_two_hours_ahead(told, self.written_at) else told
        return self.written_at or self.started_at

    @cached_property
    def unsigned(self) -> Entry:
        """The entry as it may be kept: an address without its signature."""
        url = self.entry.get("loraUrl")
        return {**self.entry, "loraUrl": without_secrets(str(url))} if is_signed(url) else self.entry

    @property
    def image_count(self) -> int | None:
        count = self.entry.get("imageCount")
        return count if isinstance(count, int) and not isinstance(count, bool) else None


def load_version(
    session: Session, model: UserModel, entry: ImportedEntry, rules: ObjectUrlRules, now: datetime
) -> Loaded | str:
    """The version of a completed entry: found by any of its names, else made. A text where another model has it."""
    sure, old_ids = _names(entry, rules)
    known = _find(session, model, sure, old_ids)
    if known is not None and known.model_id != model.id:
        owner = session.get_one(UserModel, known.model_id)
        return f"the same LoRA is V{known.number} of {owner.model_key}; a person decides whose it is"
    new = known is None
    version = known or _new_version(session, model, entry, rules, now)
    if not new:
        _fill(version, entry, rules, now)
    _name_version(session, model, version, sure, old_ids, now)
    return Loaded(version.id, new)


def load_run(session: Session, model: UserModel, entry: ImportedEntry, now: datetime) -> Loaded | None:
    """The training run of a failed entry, or of one forgotten as pending; None where it is neither."""
    state, error = _end_of(entry, now)
    if state is None:
        return None
    # Made from the entry, so that loading it again finds it.
    token = hashlib.sha256(f"legacy {model.model_key} {entry.id}".encode()).hexdigest()[:32]
    job = job_of(entry.id)
    training_id = job.text if job is not None else None
    same = TrainingRun.token == token
    if training_id is not None:
        same |= (TrainingRun.training_id == training_id) & (TrainingRun.provider == PROVIDER)
    known = session.scalars(select(TrainingRun.id).where(same)).first()
    if known is not None:
        return Loaded(known, new=False)
    last = session.scalar(select(func.max(TrainingRun.attempt)).where(TrainingRun.model_id == model.id))
    ended = entry.ended_at or now
    run = TrainingRun(
        user_id=model.user_id,
        model_id=model.id,
        attempt=(last or 0) + 1,
        token=token,
        provider=PROVIDER,
        training_id=training_id,
        destination=model.model_key,
        base_model="flux-dev",
        trainer_requested="unknown (imported)",
        parameters=entry.parameters,
        parameter_policy=POLICY,
        trigger_word=entry.trigger_word or model.trigger_word,
        state=state,
        status="failed",
        error=error,
        loss_history=[],
        asked_by="import",
        state_changed_at=ended,
        submitted_at=entry.started_at,
        completed_at=ended,
        created_at=entry.started_at or now,
        updated_at=now,
    )
    session.add(run)
    session.flush()
    return Loaded(run.id, new=True)


def serve_newest(
    session: Session, model: UserModel, loaded: Sequence[tuple[ImportedEntry, int]], now: datetime
) -> None:
    """Serve what the old system offered first: the newest version that a reviewer did not reject.

    Only where the model serves none yet; the weights are verified later, as the old system had them served unverified.
    """
    usable = [
        (entry, version_id)
        for entry, version_id in loaded
        if entry.entry.get("isGood") is not False and not is_empty(entry.entry.get("loraUrl"))
    ]
    if not usable or open_activation(session, model.id) is not None:
        return
    praised = [item for item in usable if item[0].entry.get("isGood") is True]
    _, version_id = (praised or usable)[-1]
    version = session.get_one(ModelVersion, version_id)
    reason = "the newest version that was found good" if praised else "the newest version of the old system"
    activate(session, model, version, actor="import", reason=reason, now=now, tell=False)


def _end_of(entry: ImportedEntry, now: datetime) -> tuple[str | None, str]:
    if entry.status == "failed":
        return "failed", str(entry.entry.get("error") or "Training failed")
    started = entry.started_at
    if entry.status == "pending" and (started is None or now - started > STUCK_AFTER):
        return "aborted", "pending in the old system, and never heard of again"
    return None, ""


def _names(entry: ImportedEntry, rules: ObjectUrlRules) -> tuple[list[tuple[str, str]], list[str]]:
    """(kind, alias) of what surely means the entry's version, and its old ids, which are names of files."""
    jobs = [job for one in entry.ids if (job := job_of(one)) is not None]
    sure = [("training_id", f"{job.provider}:{job.text}") for job in jobs]
    place = address_of(entry.entry, rules).place
    if place is not None:
        with suppress(IdentityError):
            sure.append(("object", object_uri(place.ref, rules)))
    return sure, [one[:_LONGEST_ALIAS] for one in entry.ids if job_of(one) is None]


def _find(
    session: Session, model: UserModel, sure: Sequence[tuple[str, str]], old_ids: Sequence[str]
) -> ModelVersion | None:
    for kind, alias in sure:
        found = _alias(session, kind, alias)
        if found is not None:
            return _survivor(session, found.version_id)
    for old_id in old_ids if not sure else ():
        # Only where the entry has nothing better: the same name in another folder is another LoRA.
        found = _alias(session, _old_id_kind(model, 1), old_id)
        if found is not None:
            return _survivor(session, found.version_id)
    return None


def _survivor(session: Session, version_id: int) -> ModelVersion:
    redirect = session.get(VersionRedirect, version_id)
    return session.get_one(ModelVersion, version_id if redirect is None else redirect.version_id)


def _alias(session: Session, kind: str, alias: str) -> VersionAlias | None:
    return session.scalars(
        select(VersionAlias).where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    ).one_or_none()


def _old_id_kind(model: UserModel, nth: int) -> str:
    """Two models may have files of one name, and two versions of one model too: a shared name then names neither."""
    return f"legacy_id:{model.id}" if nth == 1 else f"legacy_id:{model.id}:{nth}"


def _name_version(
    session: Session,
    model: UserModel,
    version: ModelVersion,
    sure: Sequence[tuple[str, str]],
    old_ids: Sequence[str],
    now: datetime,
) -> None:
    def add(kind: str, alias: str) -> None:
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=now))

    for kind, alias in sure:
        if _alias(session, kind, alias) is None:
            add(kind, alias)
    for old_id in old_ids:
        for nth in count(1):
            taken = _alias(session, _old_id_kind(model, nth), old_id)
            if taken is None:
                add(_old_id_kind(model, nth), old_id)
            if taken is None or _survivor(session, taken.version_id).id == version.id:
                break
    session.flush()


def _new_version(
    session: Session, model: UserModel, entry: ImportedEntry, rules: ObjectUrlRules, now: datetime
) -> ModelVersion:
    source = f"{entry.path} entry {entry.id}"
    given = dict.fromkeys(("parameters", "weights", "trained_at", "trigger_word", "image_count"), source)
    version = ModelVersion(
        model_id=model.id,
        number=_number(session, model, entry),
        provider=PROVIDER,
        weights_url=_address(entry, rules),
        weights_state="missing" if is_empty(entry.entry.get("loraUrl")) else "unverified",
        trigger_word=entry.trigger_word or model.trigger_word,
        parameters=entry.parameters,
        image_count=entry.image_count,
        provenance=given,
        trained_at=entry.ended_at,
        created_at=now,
        updated_at=now,
    )
    session.add(version)
    session.flush()
    return version


def _address(entry: ImportedEntry, rules: ObjectUrlRules) -> str | None:
    """Where the weights lie: word for word, unsigned, or under today's name where the folder was renamed."""
    url = entry.unsigned.get("loraUrl")
    if is_empty(url):
        return None
    place = address_of(entry.entry, rules).place
    if place is not None and place != address_of(entry.entry, replace(rules, renames=())).place:
        return object_uri(place.ref, rules)
    return str(url)


def named_number(entry: Entry) -> int | None:
    """The version number in an entry's name, or in its id."""
    for text in (entry.get("name"), entry["id"]):
        try:
            return parse_version_name(str(text or ""))
        except IdentityError:
            continue
    return None


def _number(session: Session, model: UserModel, entry: ImportedEntry) -> int:
    """The number in the entry's name where it is free, else the next one."""
    taken = set(session.scalars(select(ModelVersion.number).where(ModelVersion.model_id == model.id)))
    named = named_number(entry.entry)
    if named is not None and named not in taken:
        return named
    return max({*taken, entry.highest_named}) + 1


def _fill(version: ModelVersion, entry: ImportedEntry, rules: ObjectUrlRules, now: datetime) -> None:
    """What a known version lacked. Nothing that it has is overwritten."""
    missing = {
        "parameters": entry.parameters,
        "image_count": entry.image_count,
        "trained_at": entry.ended_at,
        "weights_url": _address(entry, rules),
    }
    for name, value in missing.items():
        if not is_empty(value) and is_empty(getattr(version, name)):
            setattr(version, name, value)
            version.provenance = {**version.provenance, name: f"{entry.path} entry {entry.id}"}
            version.updated_at = now
