"""Where artifacts lie, as whoever stored them recorded it, held against what the listings show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ArtifactLocation, InventoryObject
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.bucket_listing import LORA_ENDING, NULL_VERSION, ListedFile

_KEYS_A_QUESTION = 500


def recorded_locations(
    session: Session, place: ObjectPrefix, keys: Iterable[str]
) -> dict[str, list[ArtifactLocation]]:
    """The places of artifacts under these keys, whoever recorded them."""
    found: dict[str, list[ArtifactLocation]] = {}
    wanted = sorted(keys)
    for start in range(0, len(wanted), _KEYS_A_QUESTION):
        statement = select(ArtifactLocation).where(
            ArtifactLocation.namespace == place.namespace,
            ArtifactLocation.bucket == place.bucket,
            ArtifactLocation.key.in_(wanted[start : start + _KEYS_A_QUESTION]),
        )
        for location in session.scalars(statement):
            found.setdefault(location.key, []).append(location)
    return found


def mark_locations(
    locations: Mapping[str, list[ArtifactLocation]],
    files: Sequence[ListedFile],
    last_completed: datetime | None,
    now: datetime,
) -> None:
    """What the listing says of places that somebody recorded: still there, overwritten, or gone."""
    if not locations:
        return
    listed: dict[str, list[ListedFile]] = {}
    for file in files:
        if file.key in locations:
            listed.setdefault(file.key, []).append(file)
    for key, known in locations.items():
        here = listed.get(key, [])
        for location in known:
            same = next((file for file in here if is_same_object(location, file)), None)
            if same is not None:
                location.last_seen = now
                location.overwritten_at, location.deleted_at = same.overwritten_at, same.deleted_at
            elif location.overwritten_at is None and location.deleted_at is None:
                location.last_seen = max(location.last_seen, last_completed or location.last_seen)
                location.overwritten_at = _overwritten_at(location, here)
                location.deleted_at = now if location.overwritten_at is None else None


def _overwritten_at(location: ArtifactLocation, here: Sequence[ListedFile]) -> datetime | None:
    """Since when other bytes lie where this did; None where nothing does, or a version was removed by itself."""
    if _version(location) and any(file.object_version for file in here):
        return None
    return next((file.modified for file in here if file.is_current), None)


def _version(location: ArtifactLocation) -> str:
    return "" if location.object_version == NULL_VERSION else location.object_version


def is_same_object(location: ArtifactLocation, file: ListedFile) -> bool:
    """Whether a recorded place is this file: the same object version, or the same bytes by ETag and size of one key.

    An ETag proves nothing by itself; under one key together with the size it tells a rewritten object.
    """
    if (recorded := _version(location)) and file.object_version:
        return recorded == file.object_version
    return bool(file.etag) and (location.etag, location.size) == (file.etag, file.size)


def mark_lost_locations(session: Session, place: ObjectPrefix, began_at: datetime, now: datetime) -> None:
    """At the end of a complete pass: places of artifacts that no listing ever showed are places where they were.

    Such an object came and went between two passes. One that was recorded since this pass began may lie behind it.
    """
    at_same_key = (
        select(InventoryObject.id)
        .where(
            InventoryObject.namespace == ArtifactLocation.namespace,
            InventoryObject.bucket == ArtifactLocation.bucket,
            InventoryObject.key == ArtifactLocation.key,
            InventoryObject.listed,
        )
        .exists()
    )
    session.execute(
        update(ArtifactLocation)
        .where(
            ArtifactLocation.namespace == place.namespace,
            ArtifactLocation.bucket == place.bucket,
            # Not LIKE: SQLite's ignores case, and a database's own order of texts is not that of keys.
            func.substr(ArtifactLocation.key, 1, len(place.prefix)) == place.prefix,
            func.lower(ArtifactLocation.key).like(f"%{LORA_ENDING}"),
            ArtifactLocation.deleted_at.is_(None),
            ArtifactLocation.last_seen < began_at,
            ~at_same_key,
        )
        .values(deleted_at=now)
        .execution_options(synchronize_session=False)
    )
