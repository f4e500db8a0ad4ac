"""Verifying what a sync brought in: such a version is served at once, and its weights become evidence afterwards.

The queue is the registry itself: versions that are `unverified` and whose training at the provider is known. Our own
trainings' versions never wait here: they are verified before they are served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import AuditEntry, ModelVersion, ReviewItem, UserModel, VersionAlias
from lora_pipeline.objects.errors import ObjectStoreError
from lora_pipeline.providers.protocol import NotFound, ProviderError, Refused
from lora_pipeline.trainings.batches import BatchReport, Failure, batch_lease
from lora_pipeline.versions.activation import serve_again
from lora_pipeline.versions.archiving import archive_weights
from lora_pipeline.versions.refusal import WeightsRefused
from lora_pipeline.versions.registry import ArchivedWeights, attach_weights
from lora_pipeline.versions.registry_event import owe_registry

LEASE = "verify versions"
AT_MOST = 50
"""Versions in one batch: about 170 MB each."""
_DELIVERIES = 2
_REPLICATE = "replicate:"


@dataclass(frozen=True)
class Unverified:
    """A version in the queue."""

    version_id: int
    model_key: str
    number: int
    training_id: str
    weights_url: str = field(repr=False)


def unverified_count(connections: Connections) -> int:
    """How many versions wait to be verified."""
    with connections.database.read() as session:
        question = select(func.count()).select_from(ModelVersion).join(VersionAlias).where(_queued())
        return session.scalar(question) or 0


def verify_versions(
    connections: Connections, *, say: Callable[[str], object] = lambda _: None, limit: int = AT_MOST
) -> BatchReport:
    """Download, verify and archive the weights of the newest versions that a sync brought in.

    What cannot be downloaded any more, or is no LoRA, is registered as missing, with a review item that says why.
    Trouble at the provider or the store leaves a version in the queue. One batch works at a time.
    """
    done: list[str] = []
    failures: list[Failure] = []
    with batch_lease(connections, LEASE, None) as lease:
        for one in _waiting(connections, limit):
            if not lease.renew():
                break
            problem = _verify(connections, one)
            say(f"{one.model_key}: V{one.number} {problem or 'verified'}")
            if problem is None:
                done.append(one.model_key)
            else:
                failures.append(Failure(one.model_key, problem))
    if done or failures:
        owe_registry(connections, "verified")
    return BatchReport(tuple(done), tuple(failures), "verified")


def _queued() -> ColumnElement[bool]:
    return (
        (ModelVersion.weights_state == "unverified")
        & ModelVersion.weights_url.is_not(None)
        & ModelVersion.training_run_id.is_(None)
        & (VersionAlias.kind == "training_id")
        & VersionAlias.alias.startswith(_REPLICATE)
    )


def _waiting(connections: Connections, limit: int) -> list[Unverified]:
    question = (
        select(
            ModelVersion.id,
            UserModel.model_key,
            ModelVersion.number,
            VersionAlias.alias,
            ModelVersion.weights_url,
        )
        .join(VersionAlias, VersionAlias.version_id == ModelVersion.id)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .where(_queued())
        .order_by(ModelVersion.id.desc())
        .limit(limit)
    )
    with connections.database.read() as session:
        rows = session.execute(question).all()
    return [Unverified(row[0], row[1], row[2], row[3].removeprefix(_REPLICATE), str(row[4])) for row in rows]


def _verify(connections: Connections, one: Unverified) -> str | None:
    """Verify one version; why not, where it could not be."""
    try:
        archived = _archive(connections, one)
    except (WeightsRefused, NotFound, Refused) as error:
        _give_up(connections, one, str(error))
        return f"has no usable weights: {error}"
    except (ProviderError, ObjectStoreError, OSError) as error:
        return f"waits: {error}"
    with connections.database.begin() as session:
        version = session.get_one(ModelVersion, one.version_id)
        model = session.get_one(UserModel, version.model_id, with_for_update=True)
        session.refresh(version)
        if version.weights_state == "verified":
            return None
        attach_weights(session, version, model, archived, connections.now())
        _serve_again(connections, session, model, version)
    return None


def _serve_again(connections: Connections, session: Session, model: UserModel, version: ModelVersion) -> None:
    reason = f"its weights are {version.weights_state}"
    serve_again(session, model, version, actor="verification", reason=reason, now=connections.now())


def _archive(connections: Connections, one: Unverified) -> ArchivedWeights:
    """The weights as the training shows them now: an address that was stored then may have expired."""
    try:
        url = connections.replicate.get_training(one.training_id).output_weights or one.weights_url
    except NotFound:
        url = one.weights_url
    metadata = {"replicate_job_id": one.training_id}
    cap = connections.settings.weights_cap_bytes
    for delivery in range(_DELIVERIES):
        try:
            delivered = connections.replicate.download(url)
            return archive_weights(connections.store, delivered, one.model_key, metadata, cap_bytes=cap)
        except WeightsRefused as error:
            if not error.worth_retrying or delivery == _DELIVERIES - 1:
                raise
    raise AssertionError("unreachable")


def _give_up(connections: Connections, one: Unverified, reason: str) -> None:
    """Register the weights as missing; a version that is served shows it, and a person decides."""
    now = connections.now()
    with connections.database.begin() as session:
        version = session.get_one(ModelVersion, one.version_id)
        model = session.get_one(UserModel, version.model_id, with_for_update=True)
        session.refresh(version)
        if version.weights_state != "unverified":
            return
        version.weights_state, version.weights_url, version.updated_at = "missing", None, now
        _serve_again(connections, session, model, version)
        details = {"version": version.number, "training": one.training_id, "reason": reason}
        subject = str(version.provider_version)
        known = select(ReviewItem).where(ReviewItem.kind == "weights_refused", ReviewItem.subject == subject)
        if session.scalars(known).first() is None:
            session.add(ReviewItem(kind="weights_refused", subject=subject, details=details, created_at=now))
        session.add(
            AuditEntry(
                at=now, actor="verification", action="weights refused", subject=one.model_key, details=details
            )
        )
