"""Places where a user's weights lay and other bytes lie now: those stay, and only the user's own object versions go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ArtifactLocation, InventoryObject, ModelVersion
from lora_pipeline.erasure.belongings import Belongings
from lora_pipeline.erasure.plan import OVERWRITTEN, SHARED, Item, Kind
from lora_pipeline.identity import ObjectRef, ObjectUrlRules
from lora_pipeline.lineage.node_ids import Place, address_of

_KEYS_A_QUESTION = 500


def overwritten_items(
    session: Session, mine: Belongings, refs: Collection[ObjectRef]
) -> Mapping[ObjectRef, list[Item]]:
    """Object → what becomes of it, for those whose key leads to other bytes, or which others' weights are a version of.

    What a listing shows and nobody read counts as other bytes, unless it is an object that was recorded as the user's.
    """
    own = {artifact.id: artifact for artifact in mine.artifacts}
    versions = {version.id for version in mine.versions}
    known = list(_rows(session, ArtifactLocation, refs))
    listed = list(_rows(session, InventoryObject, refs))
    ours: dict[ObjectRef, dict[str, int]] = defaultdict(dict)
    others: dict[ObjectRef, list[Any]] = defaultdict(list)
    for ref, row in known:
        if row.artifact_id in own:
            ours[ref][row.object_version] = row.artifact_id
        elif row.deleted_at is None:
            others[ref].append(row)
    recorded = {(ref, row.object_version, row.etag, row.size) for ref, row in known if row.artifact_id in own}
    for ref, row in listed:
        if not row.listed:
            continue
        if row.artifact_id in own:
            ours[ref][row.object_version] = row.artifact_id
        elif row.version_id in versions or (ref, row.object_version, row.etag, row.size) in recorded:
            continue
        else:
            others[ref].append(row)
    registered = _registered(session, {row.artifact_id for rows in others.values() for row in rows} - {None})
    found: dict[ObjectRef, list[Item]] = {}
    for ref, rows in others.items():
        if any(_leads_to(row) or row.artifact_id in registered for row in rows):
            theirs = {row.object_version for row in rows}
            going = (
                Item(
                    Kind.WEIGHTS,
                    _versioned(ref, version),
                    own[artifact].file_sha256,
                    stays=SHARED if artifact in mine.shared else "",
                )
                for version, artifact in ours[ref].items()
                # Without versions the user's bytes went when the others came.
                if version not in theirs and ref.namespace == ObjectUrlRules().s3_namespace
            )
            found[ref] = [*going, Item(Kind.WEIGHTS, address_of(Place(ref)), stays=OVERWRITTEN)]
    return found


def _rows(
    session: Session, table: type[ArtifactLocation] | type[InventoryObject], refs: Collection[ObjectRef]
) -> Iterator[tuple[ObjectRef, Any]]:
    keys, wanted = sorted({ref.key for ref in refs}), set(refs)
    found: list[Any] = []
    for start in range(0, len(keys), _KEYS_A_QUESTION):
        statement = select(table).where(table.key.in_(keys[start : start + _KEYS_A_QUESTION]))
        found += session.scalars(statement).all()
    pairs = ((ObjectRef(row.namespace, row.bucket, row.key), row) for row in found)
    yield from ((ref, row) for ref, row in pairs if ref in wanted)


def _registered(session: Session, artifacts: Collection[int]) -> set[int | None]:
    return set(
        session.scalars(select(ModelVersion.artifact_id).where(ModelVersion.artifact_id.in_(artifacts)))
    )


def _leads_to(row: ArtifactLocation | InventoryObject) -> bool:
    return row.overwritten_at is None and row.deleted_at is None


def _versioned(ref: ObjectRef, version: str) -> str:
    """The address of one object version: `s3://` has no spelling for it."""
    return f"https://s3.amazonaws.com/{ref.bucket}/{quote(ref.key)}?versionId={quote(version or 'null', safe='')}"
