"""The inventory of the buckets: look for changes, or list, read and attach. One takes it at a time.

Nothing in a bucket is ever changed. A run may be killed anywhere: what it listed and read is stored, the rest is done
by the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import and_, func, select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import InventoryObject
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.inventory.bucket_counts import Counts
from lora_pipeline.inventory.bucket_pass import (
    Glance,
    GoOn,
    InventoryAtWork,
    glance,
    list_place,
)
from lora_pipeline.inventory.bucket_places import configured_places, place_name
from lora_pipeline.inventory.bucket_reading import Reader, ReadLimits, ReadReport, waiting
from lora_pipeline.inventory.bucket_report import (
    SHOWN,
    InventoryReport,
    PlaceReport,
    lost_weights,
    notable_files,
    standings,
)
from lora_pipeline.inventory.renames import configured_rules
from lora_pipeline.objects.errors import ObjectStoreError
from lora_pipeline.settings import SettingsError
from lora_pipeline.trainings.batches import BatchLease, batch_lease
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.versions.registry_event import owe_registry

LEASE = "inventory"
_EVER = timedelta(days=365)
_THINKING = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class RunBudget:
    """How long and how much one run may; what is left, the next one does."""

    listing: timedelta = timedelta(minutes=10)
    reading: timedelta = timedelta(minutes=10)
    limits: ReadLimits = field(default_factory=ReadLimits)


UNBOUNDED = RunBudget(_EVER, _EVER, ReadLimits(files=10**9, bytes=10**18))
"""For a person who waits and watches."""


@dataclass(frozen=True, slots=True)
class WorkToDo:
    """What a tick found: the lease for a run, or why there is none."""

    lease: str | None
    explanation: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Who is told how far a run came."""

    say: Callable[[str], object] = lambda _: None
    listed: Callable[[int], object] = lambda _: None
    """LoRA files listed so far, in all places."""
    reading: Callable[[int], object] = lambda _: None
    """How many files wait to be read."""
    read: Callable[[int], object] = lambda _: None
    """How many more files were dealt with."""


def inventory_places(connections: Connections) -> tuple[ObjectPrefix, ...]:
    """The places to list. None where there is no bucket. Raises SettingsError."""
    settings = connections.settings
    return configured_places(settings.inventory, settings.resolved_object_store)


def find_work(connections: Connections, cursor: str) -> WorkToDo:
    """List until a change is found or the tick's time is up, write nothing, and take the lease for a run if one is due.

    Raises ObjectStoreError where the bucket cannot be listed, so that the tick is seen to fail.
    """
    places = inventory_places(connections)
    if not places:
        return WorkToDo(None, _no_bucket(), "")
    database, budget = connections.database, connections.settings.tick_budget
    go_on = _until(connections.now, budget)
    seen = glance(database, Buckets(), places, cursor, connections.now, go_on)
    why = f"{seen.changed} has changed" if seen.changed else _unread(connections, places)
    if why is None:
        return WorkToDo(None, _looked(seen), seen.cursor)
    lease = take_lease(database, LEASE, connections.settings.lease, connections.now())
    explanation = why if lease else f"{why}; an inventory is at work already"
    return WorkToDo(lease, explanation, seen.cursor)


def take_inventory(
    connections: Connections,
    *,
    lease: str | None = None,
    budget: RunBudget | None = None,
    progress: Progress | None = None,
) -> InventoryReport:
    """List every place, read what is new or changed, and attach each LoRA to the version it belongs to.

    Raises InventoryAtWork where another one is at work, SettingsError where there is no bucket, and ObjectStoreError
    where none of the places could be listed.
    """
    progress, budget = progress or Progress(), budget or RunBudget()
    places = some_places(connections)
    buckets = Buckets()
    with batch_lease(connections, LEASE, lease) as held:
        if not held.renew():
            raise InventoryAtWork("another inventory is at work; ask again later")
        go_on = _keeping(connections, held, budget.listing)
        listed = _list_all(connections, buckets, places, go_on, progress)
        read = _read_all(connections, buckets, places, held, budget, progress)
    if read.attached:
        owe_registry(connections, "inventory")
    return report_on(connections, places, listed, read)


def _list_all(
    connections: Connections,
    buckets: Buckets,
    places: tuple[ObjectPrefix, ...],
    go_on: GoOn,
    progress: Progress,
) -> list[PlaceReport]:
    listed: list[PlaceReport] = []
    errors: list[ObjectStoreError] = []
    for place in places:
        before = sum(one.counts.files for one in listed)
        try:
            found = list_place(
                connections.database,
                buckets,
                place,
                connections.now,
                go_on,
                lambda counts, before=before: progress.listed(before + counts.files),  # type: ignore[misc]
            )
        except ObjectStoreError as error:
            errors.append(error)
            progress.say(f"not listed: {error}")
            listed.append(PlaceReport(place_name(place), Counts(), is_complete=False, problem=str(error)))
            continue
        progress.say(f"{place_name(place)}: {_told(found.counts, found.is_complete)}")
        listed.append(PlaceReport(place_name(place), found.counts, found.is_complete))
    if len(errors) == len(places):
        raise errors[0]
    return listed


def _read_all(
    connections: Connections,
    buckets: Buckets,
    places: tuple[ObjectPrefix, ...],
    held: BatchLease,
    budget: RunBudget,
    progress: Progress,
) -> ReadReport:
    settings, go_on = connections.settings, _keeping(connections, held, budget.reading)
    files, _ = waiting_files(connections, places)
    progress.reading(files)
    limits = ReadLimits(budget.limits.files, budget.limits.bytes, settings.weights_cap_bytes)
    reader = Reader(
        connections.database,
        buckets,
        configured_rules(settings),
        limits,
        connections.now,
        go_on,
        progress.read,
    )
    report = reader.read_waiting(places)
    reader.think_over(places, report)
    for address, reason in report.failures:
        progress.say(f"{address} could not be read: {reason}")
    return report


def report_on(
    connections: Connections,
    places: tuple[ObjectPrefix, ...],
    listed: list[PlaceReport],
    read: ReadReport,
) -> InventoryReport:
    with connections.database.read() as session:
        return InventoryReport(
            tuple(listed),
            standings(session, places),
            tuple(notable_files(session, places, SHOWN)),
            tuple(lost_weights(session, SHOWN)),
            read.read,
            read.attached,
            read.bytes_hashed,
            tuple(read.failures[:SHOWN]),
            read.ended_early,
        )


def some_places(connections: Connections) -> tuple[ObjectPrefix, ...]:
    places = inventory_places(connections)
    if not places:
        raise SettingsError(_no_bucket())
    return places


def _no_bucket() -> str:
    return (
        "there is no bucket to list: the object store is a local folder. Set LORA_INVENTORY=s3://bucket/prefix, or "
        "LORA_OBJECT_STORE=s3://bucket/prefix"
    )


def waiting_files(connections: Connections, places: tuple[ObjectPrefix, ...]) -> tuple[int, int]:
    """(files, bytes) that are to be read."""
    to_read = and_(waiting(places), InventoryObject.artifact_id.is_(None))
    statement = select(func.count(), func.coalesce(func.sum(InventoryObject.size), 0)).where(to_read)
    with connections.database.read() as session:
        files, size = session.execute(statement).one()
    return int(files), int(size)


def _unread(connections: Connections, places: tuple[ObjectPrefix, ...]) -> str | None:
    """Whether a run is due for files that wait. One that could not be read is left to the hourly run."""
    untried = select(InventoryObject.id).where(waiting(places), InventoryObject.tries == 0).limit(1)
    with connections.database.read() as session:
        return "files wait to be read" if session.scalars(untried).first() is not None else None


def _looked(seen: Glance) -> str:
    end = "to the end" if not seen.cursor else "as far as the time allowed; the next tick goes on"
    return f"{seen.listed} LoRA files looked at, {end}: nothing has changed"


def _told(counts: Counts, is_complete: bool) -> str:
    end = "" if is_complete else "; the next run goes on from here"
    return (
        f"{counts.files} LoRA files, {counts.new} new, {counts.changed} changed, {counts.overwritten} overwritten, "
        f"{counts.deleted} deleted{end}"
    )


def _until(clock: Callable[[], datetime], budget: timedelta) -> GoOn:
    end = clock() + budget
    return lambda: clock() < end


def _keeping(connections: Connections, held: BatchLease, budget: timedelta) -> GoOn:
    """Whether the time is not up and the lease still ours; it is renewed when a third of it has passed."""
    in_time = _until(connections.now, budget)
    renewed = connections.now()

    def go_on() -> bool:
        nonlocal renewed
        now = connections.now()
        if now - renewed > connections.settings.lease / 3:
            if not held.renew():
                return False
            renewed = now
        return in_time()

    return go_on
