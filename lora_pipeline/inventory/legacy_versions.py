"""Completed entries as versions with all their names: found by what they are known by, else made. Twice without effect."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ModelVersion, UserModel, VersionAlias
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entries import is_empty
from lora_pipeline.inventory.legacy_entries import ImportedEntry
from lora_pipeline.inventory.registry_versions import (
    IN_THE_HEADER,
    THE_MODELS,
    WHEN_WRITTEN,
    read_versions,
)
from lora_pipeline.inventory.unifying import StrongIds, contradiction, links_of
from lora_pipeline.versions.activation import activate, open_activation

PROVIDER = "runpod"
_NAMES_A_READ = 500


class Loaded(NamedTuple):
    """A row, and whether it is a new one."""

    id: int
    new: bool


class OtherModel(Exception):
    """The entry's LoRA is another model's version already; the message says whose."""


class ModelVersions:
    """The versions of one model while a file is loaded into it. The caller has locked the model."""

    def __init__(
        self,
        session: Session,
        model: UserModel,
        entries: Sequence[ImportedEntry],
        rules: ObjectUrlRules,
        now: datetime,
    ) -> None:
        self._session, self._model, self._now = session, model, now
        self._known: dict[int, StrongIds] = {}
        self._by_link: dict[Hashable, list[int]] = {}
        self._names: dict[tuple[str, str], int] = {}
        for version in read_versions(session, [model.id], rules):
            self._learn(version.id, version.ids)
            self._names |= dict.fromkeys(version.names, version.id)
        self._numbers = set(
            session.scalars(select(ModelVersion.number).where(ModelVersion.model_id == model.id))
        )
        self._claims = _claims(entries)
        sure = {alias for entry in entries for _, alias in entry.sure_names}
        self._names |= dict(_read_names(session, sorted(sure)))

    def load(self, entry: ImportedEntry) -> Loaded:
        """The version of a completed entry. Raises OtherModel."""
        found = self._find(entry)
        version = self._new(entry) if found is None else self._session.get_one(ModelVersion, found)
        if found is not None:
            _fill(version, entry, self._now)
        self._name(version.id, entry)
        return Loaded(version.id, new=found is None)

    def verdict_kept(self, version_id: int, entry: ImportedEntry) -> bool | None:
        """The version's verdict, where the entry has come to another one; else None."""
        kept = self._known[version_id].verdict
        return bool(kept) if None not in (kept, entry.is_good) and kept != entry.is_good else None

    def _find(self, entry: ImportedEntry) -> int | None:
        sharing = dict.fromkeys(
            version for link in links_of(entry.known_by) for version in self._by_link.get(link, ())
        )
        for name in entry.sure_names:
            version = self._names.get(name)
            if version is not None and version not in self._known:
                raise OtherModel(self._whose(version))
        itself = [
            version for name in entry.sure_names if name[0] == "training_id" for version in self._named(name)
        ]
        for old_id in entry.old_ids:
            # The same name in another folder is another LoRA.
            itself += [
                version
                for nth in self._given(old_id)
                for version in self._named((self._old_id_kind(nth), old_id))
                if version in sharing or not entry.sure_names
            ]
        # Loaded from this very entry, of which somebody may have changed their mind since.
        without_verdict = replace(entry.known_by, verdict=None)
        for version in itself:
            if contradiction([without_verdict, self._known[version]]) is None:
                return version
        for version in sharing:
            if contradiction([entry.known_by, self._known[version]]) is None:
                return version
        return None

    def _new(self, entry: ImportedEntry) -> ModelVersion:
        given = ("parameters", "weights", "trained_at", "trigger_word", "image_count")
        number = entry.number
        if number is None or number in self._numbers or self._claims.get(number) not in (None, entry.id):
            number = max({*self._numbers, entry.highest_named}) + 1
        version = ModelVersion(
            model_id=self._model.id,
            number=number,
            provider=PROVIDER,
            weights_url=entry.weights_url,
            weights_state="unverified" if entry.has_address else "missing",
            trigger_word=entry.trigger_word or self._model.trigger_word,
            parameters=entry.parameters,
            image_count=entry.image_count,
            is_good=entry.is_good,
            last_synced_at=entry.last_synced_at,
            provenance=dict.fromkeys(given, entry.source),
            trained_at=entry.ended_at,
            created_at=self._now,
            updated_at=self._now,
        )
        self._session.add(version)
        self._session.flush()
        self._numbers.add(number)
        self._learn(version.id, entry.known_by)
        return version

    def _name(self, version_id: int, entry: ImportedEntry) -> None:
        for kind, alias in entry.sure_names:
            if (kind, alias) not in self._names:
                self._add_name(kind, alias, version_id)
        for old_id in entry.old_ids:
            for nth in self._given(old_id, and_next=True):
                taken = self._names.get((self._old_id_kind(nth), old_id))
                if taken is None:
                    self._add_name(self._old_id_kind(nth), old_id, version_id)
                if taken in (None, version_id):
                    break
        self._learn(version_id, entry.known_by)

    def _add_name(self, kind: str, alias: str, version_id: int) -> None:
        self._session.add(VersionAlias(kind=kind, alias=alias, version_id=version_id, created_at=self._now))
        self._names[kind, alias] = version_id

    def _old_id_kind(self, nth: int) -> str:
        """Two models may have files of one name, and two versions of one model too: a shared name then names neither."""
        return f"legacy_id:{self._model.id}" if nth == 1 else f"legacy_id:{self._model.id}:{nth}"

    def _given(self, old_id: str, *, and_next: bool = False) -> Iterator[int]:
        """How often this old id was given in this model: 1, 2, …, and the next one that is free."""
        for nth in count(1):
            if (self._old_id_kind(nth), old_id) in self._names:
                yield nth
            else:
                if and_next:
                    yield nth
                return

    def _named(self, name: tuple[str, str]) -> Iterator[int]:
        version = self._names.get(name)
        if version in self._known:
            yield version

    def _learn(self, version_id: int, ids: StrongIds) -> None:
        known = self._known.get(version_id)
        if known is not None:
            ids = StrongIds(
                jobs=known.jobs | ids.jobs,
                content_keys=known.content_keys | ids.content_keys,
                places=known.places | ids.places,
                provider_versions=known.provider_versions | ids.provider_versions,
                verdict=ids.verdict if known.verdict is None else known.verdict,
            )
        self._known[version_id] = ids
        for link in links_of(ids):
            sharing = self._by_link.setdefault(link, [])
            if version_id not in sharing:
                sharing.append(version_id)

    def _whose(self, version_id: int) -> str:
        version = self._session.get_one(ModelVersion, version_id)
        owner = self._session.get_one(UserModel, version.model_id)
        return f"the same LoRA is V{version.number} of {owner.model_key}; a person decides whose it is"


def _claims(entries: Sequence[ImportedEntry]) -> dict[int, str]:
    """Whose a number is that several names have: the training's, before that of a file which was only found."""
    claims: dict[int, ImportedEntry] = {}
    for entry in entries:
        number = entry.number
        if number is not None:
            claims[number] = max(claims.get(number, entry), entry, key=_says_more)
    return {number: entry.id for number, entry in claims.items()}


def _says_more(entry: ImportedEntry) -> tuple[bool, bool]:
    return bool(entry.known_by.jobs), bool(entry.parameters)


def _read_names(session: Session, names: Sequence[str]) -> Iterator[tuple[tuple[str, str], int]]:
    for start in range(0, len(names), _NAMES_A_READ):
        some = names[start : start + _NAMES_A_READ]
        for kind, alias, version_id in session.execute(
            select(VersionAlias.kind, VersionAlias.alias, VersionAlias.version_id).where(
                VersionAlias.kind.in_(["training_id", "object"]), VersionAlias.alias.in_(some)
            )
        ):
            yield (kind, alias), version_id


def _fill(version: ModelVersion, entry: ImportedEntry, now: datetime) -> None:
    """What a known version lacked. Nothing that it has is overwritten but guesses; only a later sync counts."""
    missing = {
        "parameters": entry.parameters,
        "image_count": entry.image_count,
        "is_good": entry.is_good,
        "trained_at": entry.ended_at,
        "weights_url": entry.weights_url,
    }
    for name, value in missing.items():
        if not is_empty(value) and is_empty(getattr(version, name)):
            setattr(version, name, value)
            version.provenance = {**version.provenance, name: entry.source}
            version.updated_at = now
    for name, value in _better_than_guessed(version, entry).items():
        setattr(version, name, value)
        version.provenance = {**version.provenance, name: entry.source}
        version.updated_at = now
    synced = entry.last_synced_at
    if synced is not None and (version.last_synced_at is None or synced > version.last_synced_at):
        version.last_synced_at, version.updated_at = synced, now


def _better_than_guessed(version: ModelVersion, entry: ImportedEntry) -> dict[str, Any]:
    """What the entry says of values that `register` had no better source for. What a header tells is what was trained."""
    source, found = version.provenance, dict[str, Any]()
    if source.get("parameters") == IN_THE_HEADER and entry.parameters:
        found["parameters"] = {**entry.parameters, **version.parameters}
    if source.get("trained_at") == WHEN_WRITTEN and entry.told_end is not None:
        found["trained_at"] = entry.ended_at
    if source.get("trigger_word") == THE_MODELS and entry.trigger_word is not None:
        found["trigger_word"] = entry.trigger_word
    return found


def serve_newest(
    session: Session, model: UserModel, loaded: Sequence[tuple[ImportedEntry, int]], now: datetime
) -> None:
    """Serve what the old system offered first: the newest version that a reviewer did not reject.

    Only where the model serves none yet; the weights are verified later, as the old system had them served unverified.
    """
    usable = [
        (entry, version_id)
        for entry, version_id in loaded
        if entry.is_good is not False
        and entry.has_address
        and session.get_one(ModelVersion, version_id).is_good is not False
    ]
    if not usable or open_activation(session, model.id) is not None:
        return
    praised = [item for item in usable if item[0].is_good is True]
    _, version_id = (praised or usable)[-1]
    version = session.get_one(ModelVersion, version_id)
    reason = "the newest version that was found good" if praised else "the newest version of the old system"
    activate(session, model, version, actor="import", reason=reason, now=now, tell=False)
