"""The versions of the registry as the rules see them: what each is known by, and the fields that merging decides over."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Artifact,
    ArtifactLocation,
    InventoryObject,
    ModelVersion,
    UserModel,
    VersionAlias,
)
from lora_pipeline.identity import (
    IdentityError,
    JobId,
    ObjectAddress,
    ObjectRef,
    ObjectUrlRules,
    job_of,
    parse_object_url,
)
from lora_pipeline.inventory.unifying import Place, StrongIds
from lora_pipeline.versions.merged_away import still_stands

MOMENTS = ("trained_at", "last_synced_at")
"""The fields that are points in time, kept as texts."""
IN_THE_HEADER = "the file's header"
WHEN_WRITTEN = "when the object was written"
THE_MODELS = "the model's"
"""What a version's provenance says of values that `register` took for want of anything better."""
_KEYS_A_QUESTION = 500


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version as the rules see it."""

    id: int
    model_id: int
    model_key: str
    number: int
    ids: StrongIds
    values: dict[str, Any]
    """The fields that merging decides over."""
    names: tuple[tuple[str, str], ...]
    """(kind, alias) of everything that means it."""

    @property
    def name(self) -> str:
        return f"V{self.number}"


def fingerprint(versions: Iterable[KnownVersion]) -> str:
    """A digest of everything that merging these versions is decided from."""
    facts = [
        [version.id, version.values, version.names] for version in sorted(versions, key=lambda one: one.id)
    ]
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_versions(
    session: Session, model_ids: Sequence[int], rules: ObjectUrlRules | None = None
) -> list[KnownVersion]:
    """The versions of these models that are not merged into another, by model and number."""
    return _read(session, ModelVersion.model_id.in_(model_ids), rules)


def read_these_versions(
    session: Session, version_ids: Sequence[int], rules: ObjectUrlRules | None = None
) -> list[KnownVersion]:
    """Those of these versions that are not merged into another, by model and number."""
    return _read(session, ModelVersion.id.in_(version_ids), rules)


def with_content_of_their_place(session: Session, versions: Sequence[KnownVersion]) -> list[KnownVersion]:
    """The versions, those of unknown content with that of their place, where an inventory never saw another there."""
    refs = {place.ref for version in versions if not version.ids.content_keys for place in version.ids.places}
    contents = _contents_at(session, refs)
    found = []
    for version in versions:
        seen = {content for place in version.ids.places for content in contents.get(place.ref, ())}
        if not version.ids.content_keys and len(seen) == 1 and None not in seen:
            known = frozenset(content for content in seen if content is not None)
            found.append(replace(version, ids=replace(version.ids, content_keys=known)))
        else:
            found.append(version)
    return found


def _contents_at(session: Session, refs: Collection[ObjectRef]) -> dict[ObjectRef, set[str | None]]:
    """Object → the contents that lie or lay there; None for one that nobody read."""
    found: dict[ObjectRef, set[str | None]] = {}
    keys = sorted({ref.key for ref in refs})
    for table in (InventoryObject, ArtifactLocation):
        for start in range(0, len(keys), _KEYS_A_QUESTION):
            statement = (
                select(table.namespace, table.bucket, table.key, Artifact.content_key)
                .outerjoin(Artifact, Artifact.id == table.artifact_id)
                .where(
                    table.namespace.in_({ref.namespace for ref in refs}),
                    table.bucket.in_({ref.bucket for ref in refs}),
                    table.key.in_(keys[start : start + _KEYS_A_QUESTION]),
                )
            )
            for namespace, bucket, key, content in session.execute(statement):
                found.setdefault(ObjectRef(namespace, bucket, key), set()).add(content)
    return found


def _read(session: Session, chosen: ColumnElement[bool], rules: ObjectUrlRules | None) -> list[KnownVersion]:
    rows = session.execute(
        select(ModelVersion, UserModel.model_key, Artifact.content_key)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .outerjoin(Artifact, Artifact.id == ModelVersion.artifact_id)
        .where(chosen, still_stands())
        .order_by(ModelVersion.model_id, ModelVersion.number)
    ).all()
    names: dict[int, list[tuple[str, str]]] = {}
    for version_id, kind, alias in session.execute(
        select(VersionAlias.version_id, VersionAlias.kind, VersionAlias.alias)
        .join(ModelVersion, ModelVersion.id == VersionAlias.version_id)
        .where(chosen)
    ):
        names.setdefault(version_id, []).append((kind, alias))
    return [
        KnownVersion(
            version.id,
            version.model_id,
            model_key,
            version.number,
            _strong_ids(version, content, names.get(version.id, []), rules or ObjectUrlRules()),
            _values(version),
            tuple(sorted(names.get(version.id, ()))),
        )
        for version, model_key, content in rows
    ]


def _strong_ids(
    version: ModelVersion, content: str | None, names: Iterable[tuple[str, str]], rules: ObjectUrlRules
) -> StrongIds:
    addresses = {alias for kind, alias in names if kind == "object"} | {version.weights_url or ""}
    places = (_place(address, rules) for address in addresses)
    return StrongIds(
        jobs=frozenset(_job(alias) for kind, alias in names if kind == "training_id"),
        content_keys=frozenset() if content is None else frozenset((content,)),
        places=frozenset(place for place in places if place is not None),
        provider_versions=frozenset(filter(None, (version.provider_version,))),
        verdict=version.is_good,
    )


def _job(alias: str) -> JobId:
    provider, _, text = alias.partition(":")
    known = job_of(text)
    return known or JobId(text, "runpod" if provider == "runpod" else "replicate", text)


def _place(address: str, rules: ObjectUrlRules) -> Place | None:
    if not address or address.startswith("file://"):
        return None
    try:
        parsed = parse_object_url(address, rules)
    except IdentityError:
        return None
    return Place(parsed.ref, parsed.version_id) if isinstance(parsed, ObjectAddress) else None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _values(version: ModelVersion) -> dict[str, Any]:
    return {
        "provider": version.provider,
        "provider_version": version.provider_version,
        "training_run_id": version.training_run_id,
        "artifact_id": version.artifact_id,
        "weights_url": version.weights_url,
        "weights_state": version.weights_state,
        "parameters": version.parameters,
        "image_count": version.image_count,
        "is_good": version.is_good,
        "provenance": version.provenance,
        **{name: _iso(getattr(version, name)) for name in MOMENTS},
    }
