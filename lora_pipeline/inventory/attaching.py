"""Storing what was found out about files in a bucket: their artifacts and places, and the version each belongs to.

Nothing that a version has is replaced by less: verified weights, parameters and where they came from stay. Older ids
keep their meaning, no version is made, and no training run is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.observing import is_observing
from lora_pipeline.database.tables import (
    Artifact,
    ArtifactLocation,
    AuditEntry,
    InventoryObject,
    ModelVersion,
    ReviewItem,
    UserModel,
    VersionAlias,
)
from lora_pipeline.erasure.names import Name, erased
from lora_pipeline.identity import IdentityError, ObjectRef, ObjectUrlRules, object_uri
from lora_pipeline.inventory.back_fill import (
    TOKEN_CLAIM,
    Decision,
    FoundLora,
    KnownLora,
    Review,
    Standing,
    claimed_job,
    decide,
)
from lora_pipeline.inventory.back_fill_lookup import Addresses, known_of
from lora_pipeline.inventory.object_reading import ReadFile
from lora_pipeline.versions.activation import serve_again
from lora_pipeline.versions.artifacts import keep_artifact, keep_location
from lora_pipeline.versions.registry import ArchivedWeights, attach_weights
from lora_pipeline.versions.weights import VerifiedWeights

ACTOR = "inventory"
_LONGEST_SUBJECT = 300
_SETTLING = (Review.DOUBTFUL_OBJECT.value, Review.UNREGISTERED_LORA.value)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one file."""

    object_id: int
    standing: Standing
    changed: bool
    """False where it stands as it stood before."""


@dataclass(frozen=True, slots=True)
class Known:
    """What settling goes by besides the rows themselves."""

    rules: ObjectUrlRules
    addresses: Addresses
    now: datetime


def keep_read(session: Session, row: InventoryObject, read: ReadFile, now: datetime) -> None:
    """Store what reading a file brought: its claims, and its artifact and place, or why it is refused."""
    row.claims, row.decided_at = dict(read.claims), now
    if read.weights is None:
        row.state, row.reason = Standing.REFUSED.value, read.refusal or ""
        return
    gone = erased(session, read.weights.content_key, [Name.CONTENT])
    if gone is not None:
        row.state, row.claims = Standing.REFUSED.value, {}
        row.reason = f"erased: the LoRA of a user who was {gone}. Delete this copy"
        return
    artifact = keep_artifact(session, read.weights, now)
    row.artifact_id, row.file_sha256 = artifact.id, read.weights.file_sha256
    here = keep_location(session, artifact, ref_of(row), row.object_version, row.etag, row.size, now)
    here.overwritten_at, here.deleted_at = row.overwritten_at, row.deleted_at


def settle(session: Session, rows: Sequence[InventoryObject], known: Known) -> list[Settled]:
    """Decide where files stand whose artifact is known, and attach those that belong to a version."""
    rows = [row for row in rows if row.artifact_id is not None]
    session.flush()
    artifacts = {
        artifact.id: artifact
        for artifact in session.scalars(
            select(Artifact).where(Artifact.id.in_({row.artifact_id for row in rows}))
        )
    }
    shared = _keys_of_several_contents(session, rows)
    found = [_found(row, artifacts[row.artifact_id or 0], shared, known.rules) for row in rows]
    settled = []
    for row, lora, about in zip(
        rows, found, known_of(session, found, known.rules, known.addresses), strict=True
    ):
        decision = decide(lora, about.versions, about.runs)
        if decision.version_id is not None:
            decision = _attach(session, row, lora, artifacts[row.artifact_id or 0], decision, known)
        settled.append(_store(session, row, lora, decision, about.versions, known))
    return settled


def keep_failure(row: InventoryObject, problem: str, now: datetime) -> None:
    """Store that a file could not be read: it waits on, behind those that were not tried."""
    row.tries, row.reason, row.decided_at = row.tries + 1, problem, now


def unaddressable(row: InventoryObject) -> str | None:
    """Why no address can spell the file's key, or None."""
    try:
        object_uri(ref_of(row))
    except IdentityError as error:
        return f"unaddressable_key: {error}"
    return None


def ref_of(row: InventoryObject) -> ObjectRef:
    """Where it lies, under the key that the bucket has it."""
    return ObjectRef(row.namespace, row.bucket, row.key)


def shown_address(row: InventoryObject) -> str:
    """The file's address for a person, with its version where its key has several."""
    version = f"?versionId={row.object_version}" if row.object_version else ""
    return f"s3://{row.bucket}/{row.key}{version}"


def is_current(row: InventoryObject) -> bool:
    """Whether the bucket has it, and its key leads to it."""
    return row.listed and row.overwritten_at is None and row.deleted_at is None


def _found(
    row: InventoryObject,
    artifact: Artifact,
    shared: Mapping[tuple[str, str], set[int]],
    rules: ObjectUrlRules,
) -> FoundLora:
    others = shared.get((row.bucket, row.key), set()) - {artifact.id}
    return FoundLora(
        ref=rules.renamed(ref_of(row)),
        object_version=row.object_version,
        content_key=artifact.content_key,
        job=claimed_job(row.claims),
        token=row.claims.get(TOKEN_CLAIM),
        is_current=is_current(row),
        is_alone=not others,
    )


_UNREAD = 0
"""Stands for bytes whose content is not known yet: they may be other bytes."""


def _keys_of_several_contents(
    session: Session, rows: Iterable[InventoryObject]
) -> dict[tuple[str, str], set[int]]:
    """(bucket, key) → the artifacts that lie or lay there."""
    found: dict[tuple[str, str], set[int]] = {}
    keys = {row.key for row in rows}
    for table in (InventoryObject, ArtifactLocation):
        statement = select(table.bucket, table.key, table.artifact_id).where(
            table.namespace.in_({row.namespace for row in rows}),
            table.bucket.in_({row.bucket for row in rows}),
            table.key.in_(keys),
        )
        for bucket, key, artifact_id in session.execute(statement):
            found.setdefault((bucket, key), set()).add(artifact_id or _UNREAD)
    return found


def _attach(
    session: Session,
    row: InventoryObject,
    lora: FoundLora,
    artifact: Artifact,
    decision: Decision,
    known: Known,
) -> Decision:
    """Name the version by what was found, note that it was, and give it the weights that it lacks."""
    version = session.get_one(ModelVersion, decision.version_id)
    model = session.get_one(UserModel, version.model_id, with_for_update=True)
    session.refresh(version)
    if version.artifact_id not in (None, artifact.id):
        return Decision(
            Standing.DOUBTFUL, "the version got other weights meanwhile", review=Review.DOUBTFUL_OBJECT
        )
    version.last_synced_at = known.now
    _name(session, version, "object", object_uri(lora.ref), known.now)
    if lora.job is not None and not _has_job(session, version):
        _name(session, version, "training_id", f"{lora.job.provider}:{lora.job.text}", known.now)
    if not lora.is_current:
        _know_content(version, artifact, row, known.now)
    elif version.weights_state != "verified":
        _give_weights(session, version, model, row, artifact, known.now)
    return decision


def _know_content(version: ModelVersion, artifact: Artifact, row: InventoryObject, now: datetime) -> None:
    """An older object version tells what the version's content was, though no address leads to it."""
    if version.artifact_id is None:
        version.artifact_id, version.updated_at = artifact.id, now
        version.provenance = version.provenance | {"content": f"older object version {shown_address(row)}"}


def _give_weights(
    session: Session,
    version: ModelVersion,
    model: UserModel,
    row: InventoryObject,
    artifact: Artifact,
    now: datetime,
) -> None:
    address = object_uri(ref_of(row))
    before = version.weights_url
    weights = VerifiedWeights(
        content_key=artifact.content_key,
        file_sha256=row.file_sha256 or artifact.file_sha256,
        autov2=(row.file_sha256 or artifact.file_sha256)[:10],
        autov3=artifact.autov3,
        size=row.size,
        tensor_count=artifact.tensor_count,
        rank=artifact.rank,
        metadata=artifact.header_metadata,
    )
    archived = ArchivedWeights(weights, address, row.etag, row.object_version)
    attach_weights(session, version, model, archived, now, "found in the bucket and verified")
    if not is_observing(session):
        reason = "its weights were found in the bucket"
        serve_again(session, model, version, actor=ACTOR, reason=reason, now=now)
    details = {"version": version.number, "object": shown_address(row), "before": before}
    session.add(
        AuditEntry(at=now, actor=ACTOR, action="attach weights", subject=model.model_key, details=details)
    )


def _has_job(session: Session, version: ModelVersion) -> bool:
    known = select(VersionAlias.id).where(
        VersionAlias.version_id == version.id, VersionAlias.kind == "training_id"
    )
    return session.scalars(known.limit(1)).first() is not None


def _name(session: Session, version: ModelVersion, kind: str, alias: str, now: datetime) -> None:
    """Another name of the version; a name that somebody has is left alone."""
    values = {"kind": kind, "alias": alias, "version_id": version.id, "created_at": now}
    insert_unless_there(session, VersionAlias, ["kind", "alias"], [values])


def _store(
    session: Session,
    row: InventoryObject,
    lora: FoundLora,
    decision: Decision,
    versions: Sequence[KnownLora],
    known: Known,
) -> Settled:
    before = (row.state, row.reason, row.version_id)
    row.state, row.reason = decision.standing.value, decision.reason
    row.version_id = decision.version_id
    row.decided_at = known.now
    address, content = shown_address(row), f"LoRA {lora.content_key}"
    if decision.standing is Standing.ATTACHED:
        _settle_reviews(session, (_subject(address), content), decision.reason, known.now)
    if decision.review is not None:
        subject = content if decision.review is Review.UNREGISTERED_LORA else decision.subject or address
        details = {"object": address, "content": lora.content_key, "reason": decision.reason} | row.claims
        _ask(session, decision.review, subject, details, known.now)
    for version in versions:
        if version.version_id in decision.displaced:
            reason = f"other bytes lie where the weights of {version.name} were registered"
            details = {"object": address, "content": lora.content_key, "reason": reason}
            subject = f"version {version.version_id}"
            _ask(session, Review.OVERWRITTEN_WEIGHTS, subject, details, known.now)
    after = (row.state, row.reason, row.version_id)
    return Settled(row.id, decision.standing, before != after)


def _ask(session: Session, kind: Review, subject: str, details: Mapping[str, Any], now: datetime) -> None:
    """Leave something to a person, once."""
    values = {"kind": kind.value, "subject": _subject(subject), "details": dict(details), "created_at": now}
    insert_unless_there(session, ReviewItem, ["kind", "subject"], [values])


def _settle_reviews(session: Session, subjects: Iterable[str], resolution: str, now: datetime) -> None:
    session.execute(
        update(ReviewItem)
        .where(
            ReviewItem.kind.in_(_SETTLING), ReviewItem.subject.in_(subjects), ReviewItem.resolved_at.is_(None)
        )
        .values(resolved_at=now, resolution=f"{ACTOR}: {resolution}")
        .execution_options(synchronize_session=False)
    )


def _subject(text: str) -> str:
    """A subject that fits; what is too long keeps its beginning and is told apart by a digest."""
    if len(text) <= _LONGEST_SUBJECT:
        return text
    return f"{text[:200]}… {hashlib.sha256(text.encode()).hexdigest()[:32]}"
