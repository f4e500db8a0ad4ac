"""Reading the files that wait, as many as a run may, and thinking over those that no version knew yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import InventoryObject
from lora_pipeline.identity import ObjectPrefix, ObjectUrlRules
from lora_pipeline.inventory.attaching import (
    Known,
    Settled,
    is_current,
    keep_failure,
    keep_read,
    ref_of,
    settle,
    shown_address,
    unaddressable,
)
from lora_pipeline.inventory.back_fill import Standing
from lora_pipeline.inventory.back_fill_lookup import Addresses, addresses_in_other_spellings
from lora_pipeline.inventory.bucket_client import Buckets, ObjectAt
from lora_pipeline.inventory.bucket_pass import Clock, GoOn
from lora_pipeline.inventory.object_reading import ReadFile, read_file
from lora_pipeline.objects.errors import ObjectStoreError, StoreUnavailable

THREADS = 4
CHUNK = 16
"""Files that are read before what was read is stored: what a crash costs."""
ROUND = 500
"""Files that are chosen at once."""
_UNDECIDED = (Standing.UNREGISTERED, Standing.DOUBTFUL, Standing.EXPECTED)


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much one run reads; the rest waits for the next one."""

    files: int = 2_000
    bytes: int = 40_000_000_000
    cap_bytes: int = 2_000_000_000
    """A file above this is refused unread."""


@dataclass(slots=True)
class ReadReport:
    """What reading did."""

    read: int = 0
    bytes_hashed: int = 0
    attached: int = 0
    """Files that belong to a version since now."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(address, why) of files that could not be read; they still wait."""
    ended_early: str | None = None


def within(places: Sequence[ObjectPrefix]) -> ColumnElement[bool]:
    """Rows of files that lie in these places."""
    return or_(
        *(
            and_(
                InventoryObject.namespace == place.namespace,
                InventoryObject.bucket == place.bucket,
                func.substr(InventoryObject.key, 1, len(place.prefix)) == place.prefix,
            )
            for place in places
        )
    )


def waiting(places: Sequence[ObjectPrefix]) -> ColumnElement[bool]:
    """Rows of files that are to be read."""
    return and_(InventoryObject.state == Standing.WAITING.value, InventoryObject.listed, within(places))


_Reads = Mapping[int, ReadFile | ObjectStoreError | None]


@dataclass(frozen=True, slots=True)
class _Round:
    """Files to deal with, and what leads to them by an address that no index finds."""

    rows: Sequence[InventoryObject]
    addresses: Addresses

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[int]:
        return [row.id for row in self.rows]

    def chunks(self) -> Iterator[_Round]:
        for start in range(0, len(self.rows), CHUNK):
            yield _Round(self.rows[start : start + CHUNK], self.addresses)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads files and decides where they stand, on one database and the buckets of the settings."""

    database: Database
    buckets: Buckets
    rules: ObjectUrlRules
    limits: ReadLimits
    clock: Clock
    go_on: GoOn
    advanced: Callable[[int], object] = lambda _: None
    """Told how many more files were dealt with."""

    def read_waiting(self, places: Sequence[ObjectPrefix]) -> ReadReport:
        """Read what waits: files that their keys lead to before older versions, each at most once a run."""
        report, began = ReadReport(), self.clock()
        while chosen := self._choose(waiting(places), began):
            for chunk in chosen.chunks():
                report.ended_early = self._read_chunk(chunk, report) or self._why_stop(report)
                if report.ended_early is not None:
                    return report
        return report

    def think_over(self, places: Sequence[ObjectPrefix], report: ReadReport) -> None:
        """Decide again over files that no version knew: the registry may know them since, or another file told."""
        states = [standing.value for standing in _UNDECIDED]
        version_is_gone = and_(
            InventoryObject.state == Standing.ATTACHED.value, InventoryObject.version_id.is_(None)
        )
        condition = and_(
            or_(InventoryObject.state.in_(states), version_is_gone),
            InventoryObject.listed,
            InventoryObject.artifact_id.is_not(None),
            within(places),
        )
        attached = -1
        while attached != report.attached:
            attached, began = report.attached, self.clock()
            while self.go_on() and (chosen := self._choose(condition, began)):
                self._settle(chosen, {}, report)

    def _choose(self, condition: ColumnElement[bool], began: datetime) -> _Round:
        """The next round: of what was not looked at since `began`."""
        older = or_(InventoryObject.overwritten_at.is_not(None), InventoryObject.deleted_at.is_not(None))
        not_yet = or_(InventoryObject.decided_at.is_(None), InventoryObject.decided_at < began)
        order = (InventoryObject.tries, older, InventoryObject.id)
        statement = select(InventoryObject).where(condition, not_yet).order_by(*order).limit(ROUND)
        with self.database.read() as session:
            rows = session.scalars(statement).all()
            refs = frozenset(self.rules.renamed(ref_of(row)) for row in rows)
            addresses = addresses_in_other_spellings(session, refs, self.rules) if rows else {}
        return _Round(rows, addresses)

    def _read_chunk(self, chunk: _Round, report: ReadReport) -> str | None:
        """Read a chunk and store it. The store's trouble, where it answered for none of them."""
        with ThreadPoolExecutor(THREADS) as threads:
            reads = dict(zip(chunk.ids, threads.map(self._read, chunk.rows), strict=True))
        self._settle(chunk, reads, report)
        failed = [(row, read) for row in chunk.rows if isinstance(read := reads[row.id], ObjectStoreError)]
        report.failures += [(shown_address(row), str(error)) for row, error in failed]
        done = [(row, read) for row in chunk.rows if isinstance(read := reads[row.id], ReadFile)]
        report.read += len(done)
        report.bytes_hashed += sum(row.size for row, read in done if read.weights is not None)
        self.advanced(len(chunk))
        unavailable = [error for _, error in failed if isinstance(error, StoreUnavailable)]
        return str(unavailable[0]) if len(unavailable) == len(chunk) else None

    def _read(self, row: InventoryObject) -> ReadFile | ObjectStoreError | None:
        """What the file is; None where nothing has to be read."""
        if row.artifact_id is not None:
            return None
        if (problem := unaddressable(row)) is not None:
            return ReadFile({}, refusal=problem)
        at = ObjectAt(row.key, row.object_version, row.etag, is_current(row))
        try:
            return read_file(self.buckets[row.bucket], at, row.size, self.limits.cap_bytes)
        except ObjectStoreError as error:
            return error

    def _settle(self, chosen: _Round, reads: _Reads, report: ReadReport) -> None:
        try:
            settled = self._settle_once(chosen, reads)
        except DBAPIError:
            # Another writer was in the way, and all was rolled back; the second time it is through.
            settled = self._settle_once(chosen, reads)
        report.attached += sum(one.changed and one.standing is Standing.ATTACHED for one in settled)

    def _settle_once(self, chosen: _Round, reads: _Reads) -> list[Settled]:
        now = self.clock()
        with self.database.begin() as session:
            rows = _still_as_chosen(session, chosen)
            for row in rows:
                read = reads.get(row.id)
                if isinstance(read, ReadFile):
                    keep_read(session, row, read, now)
                elif read is not None:
                    keep_failure(row, str(read), now)
            return settle(session, rows, Known(self.rules, chosen.addresses, now))

    def _why_stop(self, report: ReadReport) -> str | None:
        if report.read >= self.limits.files or report.bytes_hashed >= self.limits.bytes:
            return f"{report.read} files with {report.bytes_hashed:,} bytes are what one run reads"
        return None if self.go_on() else "the time is up"


def _still_as_chosen(session: Session, chosen: _Round) -> list[InventoryObject]:
    """The rows, locked; without those that somebody decided over meanwhile."""
    before = {row.id: (row.state, row.decided_at) for row in chosen.rows}
    statement = (
        select(InventoryObject)
        .where(InventoryObject.id.in_(chosen.ids))
        .order_by(InventoryObject.id)
        .with_for_update()
    )
    return [row for row in session.scalars(statement) if (row.state, row.decided_at) == before[row.id]]
