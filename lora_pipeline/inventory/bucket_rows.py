"""What is stored of the listings: read in the order of keys, and changed a stretch at a time, in one transaction each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import changed_rows
from lora_pipeline.database.tables import ArtifactLocation, Base, InventoryObject, InventoryPlace
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.bucket_changes import Changes, Marked, StoredFile
from lora_pipeline.inventory.bucket_counts import Counts
from lora_pipeline.inventory.bucket_listing import ListedFile, Stretch
from lora_pipeline.inventory.bucket_locations import is_same_object, mark_locations, recorded_locations

_KEYS_A_QUESTION = 500


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over a place, as far as it came."""

    place_id: int
    place: ObjectPrefix
    began_at: datetime
    marker: str
    counts: Counts
    last_completed: datetime | None

    def with_counts(self, counts: Counts) -> Pass:
        """It, having counted more."""
        return replace(self, counts=counts)


def open_pass(session: Session, place: ObjectPrefix, now: datetime) -> Pass:
    """The pass that is under way, else a new one."""
    row = session.scalars(_row_of(place)).one_or_none()
    if row is None:
        row = InventoryPlace(namespace=place.namespace, bucket=place.bucket, prefix=place.prefix)
        session.add(row)
    if row.pass_began_at is None:
        row.pass_began_at, row.marker, row.counts = now, "", asdict(Counts())
    session.flush()
    return Pass(row.id, place, row.pass_began_at, row.marker, Counts(**row.counts), row.completed_at)


def advance(session: Session, at: Pass, upto: str, counts: Counts) -> Pass | None:
    """The pass, moved on; None where another process moved it meanwhile, and nothing may be written."""
    moved = replace(at, marker=upto, counts=counts)
    values = {"marker": upto, "counts": asdict(counts)}
    return moved if _move(session, at, values) else None


def complete(session: Session, at: Pass, counts: Counts) -> bool:
    """End a pass that came to the end of its place. False where another process moved it meanwhile."""
    values = {"marker": "", "pass_began_at": None, "completed_at": at.began_at, "counts": asdict(counts)}
    return _move(session, at, values)


def stored_files(session: Session, place: ObjectPrefix, after: str, upto: str | None) -> list[StoredFile]:
    """The place's listed files with keys behind `after` up to `upto`, or to the place's end."""
    statement = _in_place(place).where(InventoryObject.key > after)
    if upto is not None:
        statement = statement.where(InventoryObject.key <= upto)
    elif place.prefix:
        # Every key with this prefix, and no other, lies before the one with its last character moved on by one.
        statement = statement.where(InventoryObject.key < f"{place.prefix[:-1]}{chr(ord('/') + 1)}")
    if place.prefix > after:
        statement = statement.where(InventoryObject.key >= place.prefix)
    return [StoredFile(*row) for row in session.execute(statement)]


def write_changes(session: Session, at: Pass, stretch: Stretch, changes: Changes, now: datetime) -> None:
    """Store what a stretch brought."""
    _mark(session, [(mark, True) for mark in changes.marked] + [(mark, False) for mark in changes.gone])
    locations = recorded_locations(session, at.place, changes.keys)
    _add_files(session, at.place, changes.new, locations, now)
    mark_locations(locations, stretch.files, at.last_completed, now)


def _row_of(place: ObjectPrefix) -> Any:
    return (
        select(InventoryPlace)
        .where(
            InventoryPlace.namespace == place.namespace,
            InventoryPlace.bucket == place.bucket,
            InventoryPlace.prefix == place.prefix,
        )
        .with_for_update()
    )


def _move(session: Session, at: Pass, values: Mapping[str, Any]) -> bool:
    statement = update(InventoryPlace).where(
        InventoryPlace.id == at.place_id,
        InventoryPlace.marker == at.marker,
        InventoryPlace.pass_began_at == at.began_at,
    )
    return changed_rows(session, statement.values(**values)) == 1


def _in_place(place: ObjectPrefix) -> Any:
    return select(
        InventoryObject.id,
        InventoryObject.key,
        InventoryObject.object_version,
        InventoryObject.etag,
        InventoryObject.size,
        InventoryObject.overwritten_at,
        InventoryObject.deleted_at,
    ).where(
        InventoryObject.namespace == place.namespace,
        InventoryObject.bucket == place.bucket,
        InventoryObject.listed,
    )


def _mark(session: Session, marks: Sequence[tuple[Marked, bool]]) -> None:
    if not marks:
        return
    table = Base.metadata.tables[InventoryObject.__tablename__]
    statement = (
        update(table)
        .where(table.c.id == bindparam("row"))
        .values(
            overwritten_at=bindparam("overwritten"), deleted_at=bindparam("deleted"), listed=bindparam("here")
        )
    )
    rows = [
        {
            "row": mark.file.id,
            "overwritten": mark.overwritten_at,
            "deleted": mark.deleted_at,
            "here": here,
        }
        for mark, here in marks
    ]
    session.connection().execute(statement, rows)


def _add_files(
    session: Session,
    place: ObjectPrefix,
    files: Sequence[ListedFile],
    locations: Mapping[str, list[ArtifactLocation]],
    now: datetime,
) -> None:
    """Rows for new bytes. Bytes that were there before, and were gone, get their row back."""
    back = {tuple(row[1:5]): row[0] for row in _unlisted(session, place, [file.key for file in files])}
    fresh = [file for file in files if file[:4] not in back]
    if fresh:
        session.execute(insert(InventoryObject), [_row(place, file, locations, now) for file in fresh])
    returned = [
        (
            Marked(StoredFile(back[file[:4]], *file[:4], None, None), file.overwritten_at, file.deleted_at),
            True,
        )
        for file in files
        if file[:4] in back
    ]
    _mark(session, returned)


def _row(
    place: ObjectPrefix,
    file: ListedFile,
    locations: Mapping[str, list[ArtifactLocation]],
    now: datetime,
) -> dict[str, Any]:
    known = next((one for one in locations.get(file.key, ()) if is_same_object(one, file)), None)
    return {
        "namespace": place.namespace,
        "bucket": place.bucket,
        "key": file.key,
        "object_version": file.object_version,
        "etag": file.etag,
        "size": file.size,
        "modified": file.modified,
        "listed": True,
        "overwritten_at": file.overwritten_at,
        "deleted_at": file.deleted_at,
        "artifact_id": known.artifact_id if known is not None else None,
        "first_seen": now,
    }


def _unlisted(session: Session, place: ObjectPrefix, keys: Sequence[str]) -> Iterable[Any]:
    columns = (
        InventoryObject.id,
        InventoryObject.key,
        InventoryObject.object_version,
        InventoryObject.etag,
        InventoryObject.size,
    )
    for start in range(0, len(keys), _KEYS_A_QUESTION):
        yield from session.execute(
            select(*columns).where(
                InventoryObject.namespace == place.namespace,
                InventoryObject.bucket == place.bucket,
                InventoryObject.key.in_(keys[start : start + _KEYS_A_QUESTION]),
                ~InventoryObject.listed,
            )
        )
