"""Listing the configured places: a stretch at a time, each compared and stored in one transaction with how far it came.

A pass may be cut anywhere: the next one goes on behind the last stretch. Looking and planning compare in the same way
and write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from lora_pipeline.database.sessions import Database
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.bucket_changes import Changes, compare
from lora_pipeline.inventory.bucket_client import Bucket, Buckets
from lora_pipeline.inventory.bucket_counts import Counts
from lora_pipeline.inventory.bucket_listing import DisorderedListing, Stretch, stretches, version_stretches
from lora_pipeline.inventory.bucket_locations import mark_lost_locations
from lora_pipeline.inventory.bucket_places import place_name
from lora_pipeline.inventory.bucket_rows import (
    Pass,
    advance,
    complete,
    open_pass,
    stored_files,
    write_changes,
)
from lora_pipeline.objects.errors import StoreRefused

Clock = Callable[[], datetime]
GoOn = Callable[[], bool]
"""Whether to go on: False where the time is up, or somebody else has the lease."""


class InventoryAtWork(Exception):
    """Another process is taking the inventory; nothing was written. Ask again later."""


class Listed(NamedTuple):
    """How far the pass over one place came."""

    place: ObjectPrefix
    counts: Counts
    is_complete: bool


class Compared(NamedTuple):
    """One stretch of a place and what changed in it."""

    place: ObjectPrefix
    marker: str
    """Where the stretch begins."""
    stretch: Stretch
    changes: Changes


@dataclass(frozen=True, slots=True)
class Glance:
    """What looking at the places without writing found."""

    cursor: str
    """Where the next look goes on; empty where this one came to the end."""
    changed: str | None = None
    """The first place that is no longer as it is stored."""
    listed: int = field(default=0)


def list_place(
    database: Database,
    buckets: Buckets,
    place: ObjectPrefix,
    clock: Clock,
    go_on: GoOn,
    listed: Callable[[Counts], object] = lambda _: None,
) -> Listed:
    """Go on with the pass over one place, or begin one, and store what changed.

    At least one stretch is dealt with, so that whoever has little time gets to the end too. Raises InventoryAtWork
    where another process went on with this pass meanwhile, and ObjectStoreError.
    """
    with database.begin() as session:
        at = open_pass(session, place, clock())
    for stretch in _stretches(buckets[place.bucket], place, at.marker):
        at, is_complete = _store_stretch(database, at, stretch, clock())
        listed(at.counts)
        if is_complete or not go_on():
            return Listed(place, at.counts, is_complete)
    raise AssertionError("a listing ends with the stretch that completes it")


def glance(
    database: Database,
    buckets: Buckets,
    places: Sequence[ObjectPrefix],
    cursor: str,
    clock: Clock,
    go_on: GoOn,
) -> Glance:
    """Look for the first change behind `cursor`, and write nothing. What this look did not reach, the next one does."""
    first, marker = _read_cursor(cursor, places)
    listed = 0
    for place in places[first:]:
        for found in _compared(database, buckets, place, marker, clock):
            if found.changes:
                return Glance(_cursor(place, found.marker), place_name(place), listed)
            listed += len(found.stretch.files)
            if found.stretch.upto is not None and not go_on():
                return Glance(_cursor(place, found.stretch.upto), None, listed)
        marker = ""
    return Glance("", None, listed)


def compare_all(
    database: Database, buckets: Buckets, place: ObjectPrefix, clock: Clock
) -> Iterator[Compared]:
    """Everything that changed in a place since it was last listed; nothing is written."""
    yield from _compared(database, buckets, place, "", clock)


def _compared(
    database: Database, buckets: Buckets, place: ObjectPrefix, marker: str, clock: Clock
) -> Iterator[Compared]:
    for stretch in _stretches(buckets[place.bucket], place, marker):
        with database.read() as session:
            stored = stored_files(session, place, marker, stretch.upto)
        yield Compared(place, marker, stretch, compare(stretch.files, stored, clock()))
        marker = stretch.upto or ""


def _stretches(bucket: Bucket, place: ObjectPrefix, marker: str) -> Iterator[Stretch]:
    read = version_stretches if bucket.keeps_versions() else stretches
    try:
        yield from read(bucket.pages(place.prefix, marker), marker)
    except DisorderedListing as error:
        raise StoreRefused(place_name(place), str(error), "Leave it out of LORA_INVENTORY") from error


def _store_stretch(database: Database, at: Pass, stretch: Stretch, now: datetime) -> tuple[Pass, bool]:
    with database.begin() as session:
        stored = stored_files(session, at.place, at.marker, stretch.upto)
        changes = compare(stretch.files, stored, now)
        counts = at.counts + Counts.of(stretch, changes)
        # The pass is moved before anything is written: whoever comes second sees that it was, and writes nothing.
        if stretch.upto is None:
            moved = at.with_counts(counts) if complete(session, at, counts) else None
        else:
            moved = advance(session, at, stretch.upto, counts)
        if moved is None:
            raise InventoryAtWork(f"another process is listing {place_name(at.place)}; ask again later")
        if changes:
            write_changes(session, at, stretch, changes, now)
        if stretch.upto is None:
            mark_lost_locations(session, at.place, at.began_at, now)
    return moved, stretch.upto is None


def _cursor(place: ObjectPrefix, marker: str) -> str:
    return json.dumps([place_name(place), marker])


def _read_cursor(cursor: str, places: Sequence[ObjectPrefix]) -> tuple[int, str]:
    """(index of the place to go on with, the key behind which), the beginning where the cursor no longer fits."""
    try:
        name, marker = json.loads(cursor)
        return [place_name(place) for place in places].index(name), str(marker)
    except (TypeError, ValueError):
        return 0, ""
