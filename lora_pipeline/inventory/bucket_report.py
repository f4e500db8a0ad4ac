"""Where the found files stand against the registry: what the faces show, read from what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import String, func, literal, select
from sqlalchemy.orm import Session, aliased

from lora_pipeline.database.tables import (
    Activation,
    ArtifactLocation,
    InventoryObject,
    ModelVersion,
    UserModel,
    VersionRedirect,
)
from lora_pipeline.identity import ObjectPrefix
from lora_pipeline.inventory.attaching import shown_address
from lora_pipeline.inventory.back_fill import Standing
from lora_pipeline.inventory.bucket_counts import Counts
from lora_pipeline.inventory.bucket_reading import within

SHOWN = 200
_NOTABLE = (Standing.DOUBTFUL, Standing.REFUSED, Standing.UNREGISTERED, Standing.WAITING, Standing.EXPECTED)
"""What is shown first."""


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What the pass over one place saw."""

    place: str
    counts: Counts
    is_complete: bool
    problem: str | None = None
    """Why it could not be listed."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file that is not simply attached, or the version that it belongs to."""

    address: str
    size: int
    standing: str
    model: str | None
    version: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class LostWeights:
    """A served version whose weights are no longer where its address leads."""

    model: str
    version: str
    address: str
    what: str
    """`overwritten` or `deleted`."""


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """What lies in the buckets, against the registry."""

    places: tuple[PlaceReport, ...]
    standings: Mapping[str, int]
    """Standing → files that their keys lead to."""
    notable: tuple[FileReport, ...]
    """Files that are not attached, as many as are shown."""
    lost: tuple[LostWeights, ...]
    read: int = 0
    attached: int = 0
    """Files that belong to a version since this run."""
    bytes_hashed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    ended_early: str | None = None

    @property
    def counts(self) -> Counts:
        """Over all places."""
        return sum((place.counts for place in self.places), Counts())

    @property
    def has_findings(self) -> bool:
        """Whether there is something left to do or to decide."""
        settled = (Standing.ATTACHED, Standing.EXPECTED)
        open_files = sum(count for standing, count in self.standings.items() if standing not in settled)
        return bool(open_files or self.lost or not self.is_whole)

    @property
    def is_whole(self) -> bool:
        """Whether every place was listed to its end."""
        return all(place.is_complete for place in self.places)

    @property
    def next_step(self) -> str:
        """What to do next, in one line."""
        return next_step(self)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without any signed address."""
        return {
            "places": [asdict(place) for place in self.places],
            "objects": asdict(self.counts),
            "standings": dict(self.standings),
            "notable": [asdict(file) for file in self.notable],
            "served_without_weights": [asdict(lost) for lost in self.lost],
            "read": self.read,
            "attached": self.attached,
            "bytes_hashed": self.bytes_hashed,
            "failures": [{"object": address, "reason": reason} for address, reason in self.failures],
            "ended_early": self.ended_early,
            "next": self.next_step,
        }


def next_step(report: InventoryReport) -> str:
    """The most urgent thing first."""
    standings = report.standings
    if report.lost:
        first = report.lost[0]
        return (
            f"bring back {first.address}, which {first.model} serves, or go back to an earlier version: "
            f"lora-pipeline rollback {first.model}"
        )
    if standings.get(Standing.WAITING) or not report.is_whole:
        return "lora-pipeline inventory --apply goes on with what is left"
    if standings.get(Standing.DOUBTFUL):
        return (
            "the doubtful ones say what contradicts what: correct the ids in their metadata or move them away; "
            "versions that are one LoRA: lora-pipeline dedupe"
        )
    if standings.get(Standing.REFUSED):
        return "upload the refused files again, or delete them"
    if standings.get(Standing.UNREGISTERED):
        return (
            "import what names the unregistered ones (lora-pipeline import training-versions DIR), or say whose they "
            "are: lora-pipeline register OBJECT --model MODEL"
        )
    return "nothing to do"


def standings(session: Session, places: Sequence[ObjectPrefix]) -> dict[str, int]:
    """How many files stand where; every standing is named."""
    rows = session.execute(
        select(InventoryObject.state, func.count())
        .where(*_present(), within(places))
        .group_by(InventoryObject.state)
    )
    found = {row[0]: row[1] for row in rows}
    return {standing.value: found.get(standing.value, 0) for standing in Standing}


def notable_files(session: Session, places: Sequence[ObjectPrefix], limit: int) -> list[FileReport]:
    """Files that are not attached, the most doubtful first."""
    found: list[FileReport] = []
    for standing in _NOTABLE:
        statement = _with_versions().where(
            InventoryObject.state == standing.value, *_present(), within(places)
        )
        rows = session.execute(statement.order_by(InventoryObject.id).limit(limit - len(found)))
        found += [_file(*row) for row in rows]
        if len(found) >= limit:
            break
    return found


def lost_weights(session: Session, limit: int) -> list[LostWeights]:
    """Served versions whose own address leads to nothing, or to other bytes, as far as the listings tell."""
    address = literal("s3://", String) + ArtifactLocation.bucket + "/" + ArtifactLocation.key
    here = aliased(ArtifactLocation)
    still_there = (
        select(here.id)
        .where(
            here.namespace == ArtifactLocation.namespace,
            here.bucket == ArtifactLocation.bucket,
            here.key == ArtifactLocation.key,
            here.artifact_id == ArtifactLocation.artifact_id,
            here.deleted_at.is_(None),
            here.overwritten_at.is_(None),
        )
        .exists()
    )
    gone = ArtifactLocation.deleted_at.is_not(None) | ArtifactLocation.overwritten_at.is_not(None)
    rows = session.execute(
        select(
            UserModel.model_key,
            ModelVersion.number,
            ModelVersion.weights_url,
            ArtifactLocation.overwritten_at,
        )
        .join(ModelVersion, ModelVersion.artifact_id == ArtifactLocation.artifact_id)
        .join(Activation, Activation.version_id == ModelVersion.id)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .where(gone, Activation.active_to.is_(None), ModelVersion.weights_url == address, ~still_there)
        .order_by(UserModel.model_key)
        .limit(limit)
    )
    return [
        LostWeights(key, f"V{number}", str(url), "deleted" if overwritten is None else "overwritten")
        for key, number, url, overwritten in rows
    ]


def _present() -> tuple[Any, ...]:
    return (
        InventoryObject.listed,
        InventoryObject.overwritten_at.is_(None),
        InventoryObject.deleted_at.is_(None),
    )


def _with_versions() -> Any:
    """Files with the version they belong to now: a merged one leads on in one hop."""
    version_id = func.coalesce(VersionRedirect.version_id, InventoryObject.version_id)
    return (
        select(InventoryObject, UserModel.model_key, ModelVersion.number)
        .outerjoin(VersionRedirect, VersionRedirect.old_version_id == InventoryObject.version_id)
        .outerjoin(ModelVersion, ModelVersion.id == version_id)
        .outerjoin(UserModel, UserModel.id == ModelVersion.model_id)
    )


def _file(row: InventoryObject, model: str | None, number: int | None) -> FileReport:
    version = None if number is None else f"V{number}"
    return FileReport(shown_address(row), row.size, row.state, model, version, row.reason)
