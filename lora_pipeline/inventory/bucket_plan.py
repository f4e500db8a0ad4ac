"""What taking the inventory would find: everything is listed, no file is read, and nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_pipeline.connections import Connections
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.bucket_changes import Changes
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.inventory.bucket_counts import Counts
from lora_pipeline.inventory.bucket_inventory import Progress, report_on, some_places, waiting_files
from lora_pipeline.inventory.bucket_pass import compare_all
from lora_pipeline.inventory.bucket_places import place_name
from lora_pipeline.inventory.bucket_reading import ReadReport
from lora_pipeline.inventory.bucket_report import InventoryReport, PlaceReport

_SAMPLE = 60


@dataclass(frozen=True, slots=True)
class InventoryPlan:
    """What taking the inventory would find new, and where the files stand that are known."""

    report: InventoryReport
    changes: tuple[dict[str, Any], ...] = ()
    """The first changes: what, address, size."""
    to_read: int = 0
    bytes_to_read: int = 0

    @property
    def has_findings(self) -> bool:
        return bool(self.to_read or self.changes or self.report.has_findings)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        planned = {"to_read": self.to_read, "bytes_to_read": self.bytes_to_read, "changes": self.changes}
        return {"applied": False, **planned, **self.report.as_json()}


def plan_inventory(connections: Connections, progress: Progress | None = None) -> InventoryPlan:
    """What taking the inventory would find. Lists everything, reads no file, writes nothing."""
    progress = progress or Progress()
    places, buckets = some_places(connections), Buckets()
    listed: list[PlaceReport] = []
    changes: list[dict[str, Any]] = []
    to_read = bytes_to_read = 0
    for place in places:
        counts = Counts()
        for found in compare_all(connections.database, buckets, place, connections.now):
            counts += Counts.of(found.stretch, found.changes)
            to_read += len(found.changes.new)
            bytes_to_read += sum(file.size for file in found.changes.new)
            changes += _changes(place, found.changes, _SAMPLE - len(changes))
            progress.listed(sum((one.counts.files for one in listed), counts.files))
        listed.append(PlaceReport(place_name(place), counts, is_complete=True))
    files, size = waiting_files(connections, places)
    report = report_on(connections, places, listed, ReadReport())
    return InventoryPlan(report, tuple(changes), to_read + files, bytes_to_read + size)


def _changes(place: ObjectPrefix, changes: Changes, limit: int) -> list[dict[str, Any]]:
    bucket = place.bucket
    found = [
        {
            "what": "changed" if file.key in changes.known_keys else "new",
            "object": f"s3://{bucket}/{file.key}",
            "size": file.size,
        }
        for file in changes.new
    ]
    for mark in (*changes.marked, *changes.gone):
        what = "deleted" if mark.deleted_at else "overwritten" if mark.overwritten_at else "back"
        found.append({"what": what, "object": f"s3://{bucket}/{mark.file.key}", "size": mark.file.size})
    return found[: max(0, limit)]
