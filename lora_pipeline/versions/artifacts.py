"""Artifacts by content, and the places where they lie: the one way to record either."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.tables import Artifact, ArtifactLocation
from lora_pipeline.identity import ObjectAddress, ObjectRef, parse_object_url
from lora_pipeline.versions.weights import VerifiedWeights


def keep_artifact(session: Session, weights: VerifiedWeights, now: datetime) -> Artifact:
    """The artifact of these tensors, known or new."""
    same_content = select(Artifact).where(Artifact.content_key == weights.content_key)
    artifact = session.scalars(same_content).one_or_none()
    if artifact is not None:
        return artifact
    row = {
        "content_key": weights.content_key,
        "file_sha256": weights.file_sha256,
        "autov2": weights.autov2,
        "autov3": weights.autov3,
        "size": weights.size,
        "tensor_count": weights.tensor_count,
        "rank": weights.rank,
        "header_metadata": dict(weights.metadata),
        "created_at": now,
    }
    # Another transaction may do so at the same moment: a training is finalised while its weights are found.
    insert_unless_there(session, Artifact, ["content_key"], [row])
    return session.scalars(same_content).one()


def keep_location(
    session: Session,
    artifact: Artifact,
    ref: ObjectRef,
    object_version: str,
    etag: str,
    size: int,
    now: datetime,
) -> ArtifactLocation:
    """The place where a copy of the artifact lies now, whatever became of an earlier one there."""
    own = {
        "namespace": ref.namespace,
        "bucket": ref.bucket,
        "key": ref.key,
        "object_version": object_version,
        "artifact_id": artifact.id,
    }
    same_place = select(ArtifactLocation).filter_by(**own)
    place = session.scalars(same_place).one_or_none()
    if place is None:
        row = own | {"etag": etag, "size": size, "first_seen": now, "last_seen": now}
        insert_unless_there(session, ArtifactLocation, list(own), [row])
        place = session.scalars(same_place).one()
    place.etag, place.size = etag, size
    place.last_seen, place.overwritten_at, place.deleted_at = now, None, None
    return place


def place_of(address: str) -> ObjectRef:
    """Where an address of ours leads; a local folder is a namespace of its own without buckets."""
    if address.startswith("file://"):
        return ObjectRef("file", "", address.removeprefix("file://"))
    parsed = parse_object_url(address)
    assert isinstance(parsed, ObjectAddress)
    return parsed.ref
