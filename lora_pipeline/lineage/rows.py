"""What a lineage is read into, and what may be read: rows by their ids, within a scope."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row

from lora_pipeline.database.tables import ArtifactLocation
from lora_pipeline.identity import ObjectRef, ObjectUrlRules
from lora_pipeline.lineage.node_ids import Place

INCLUDED = "included"
OBJECT = "object"
"""The kind of alias that is an address."""
JOB = "training_id"
"""The kind of alias that is a provider's job."""


@dataclass(frozen=True)
class Scope:
    """What may be seen, and how this installation reads addresses."""

    user_id: str | None = None
    """One user's things, or (None) everybody's."""
    rules: ObjectUrlRules = field(default_factory=ObjectUrlRules)
    key_of: Callable[[str], str | None] = lambda _: None
    """The key that an address has in our own store, or None."""


@dataclass
class Rows:
    """What was read, each by its row id."""

    images: dict[int, Row[Any]] = field(default_factory=dict)
    members: dict[int, Row[Any]] = field(default_factory=dict)
    sets: dict[int, Row[Any]] = field(default_factory=dict)
    runs: dict[int, Row[Any]] = field(default_factory=dict)
    versions: dict[int, Row[Any]] = field(default_factory=dict)
    """Merged ones are not here but in `merged`."""
    merged: dict[int, Row[Any]] = field(default_factory=dict)
    aliases: dict[int, Row[Any]] = field(default_factory=dict)
    artifacts: dict[int, Row[Any]] = field(default_factory=dict)
    locations: dict[int, Row[Any]] = field(default_factory=dict)
    activations: dict[int, Row[Any]] = field(default_factory=dict)
    models: dict[int, Row[Any]] = field(default_factory=dict)


def at_place(place: Place) -> ColumnElement[bool]:
    """The locations at a place; at every object version of it where none is named."""
    found = (
        (ArtifactLocation.namespace == place.ref.namespace)
        & (ArtifactLocation.bucket == place.ref.bucket)
        & (ArtifactLocation.key == place.ref.key)
    )
    return (
        found & (ArtifactLocation.object_version == place.object_version) if place.object_version else found
    )


def place_of_row(row: Row[Any]) -> Place:
    """The place of a location row."""
    return Place(ObjectRef(row.namespace, row.bucket, row.key), row.object_version)


def versions_by_job(aliases: Iterable[Row[Any]]) -> dict[str, set[int]]:
    """Provider job (`replicate:…`) → versions that go by it."""
    found: dict[str, set[int]] = {}
    for row in aliases:
        if row.kind == JOB:
            found.setdefault(row.alias, set()).add(row.version_id)
    return found


def by_version(rows: Iterable[Row[Any]]) -> defaultdict[int, list[Row[Any]]]:
    """Rows by the version that they are about."""
    found: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.version_id].append(row)
    return found
