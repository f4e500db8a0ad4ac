"""Deleting every row of a user, and every row elsewhere that names them: one transaction, called by the journal."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, String, cast, delete, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from lora_pipeline.database.sessions import changed_rows
from lora_pipeline.database.tables import (
    Activation,
    ApiKey,
    Artifact,
    ArtifactLocation,
    AuditEntry,
    BackgroundJob,
    Base,
    Callback,
    IdempotencyKey,
    Image,
    ImageSet,
    ImageSetMember,
    InventoryObject,
    LoraWeights,
    MergeJournal,
    MergePlan,
    ModelVersion,
    OutboxEvent,
    ProviderSighting,
    ResolveCheck,
    ReviewItem,
    SelfieUpload,
    TrainingRun,
    User,
    UserModel,
    VersionAlias,
    VersionRedirect,
    WebhookDelivery,
)
from lora_pipeline.erasure.belongings import Belongings
from lora_pipeline.erasure.names import Name
from lora_pipeline.erasure.plan import ErasurePlan, Kind, is_mentioned
from lora_pipeline.identity import IdentityError, ObjectAddress, parse_object_url
from lora_pipeline.inventory.bucket_listing import NULL_VERSION

_CHUNK = 500
"""SQLite takes some thousand parameters in one statement."""
_SHORT = 5
"""A user id such as 42 stands for itself only where it is a whole value: as a word it means anything."""


def delete_rows(session: Session, mine: Belongings, plan: ErasurePlan) -> dict[str, int]:
    """Delete them all; table → how many. The caller holds the user's row."""
    deleted: dict[str, int] = {}

    def drop(table: type[Base], column: InstrumentedAttribute[Any], values: Collection[Any]) -> None:
        listed = list(values)
        for start in range(0, len(listed), _CHUNK):
            count = changed_rows(session, delete(table).where(column.in_(listed[start : start + _CHUNK])))
            if count:
                deleted[table.__tablename__] = deleted.get(table.__tablename__, 0) + count

    user = [mine.user.id]
    models = [model.id for model in mine.models]
    versions = [version.id for version in mine.versions]
    runs = [run.id for run in mine.runs]
    sets = [one.id for one in mine.sets]
    artifacts = [artifact.id for artifact in mine.artifacts if artifact.id not in mine.shared]
    jobs = [run.training_id for run in mine.runs if run.training_id]
    _elsewhere(session, mine, plan, drop)
    session.execute(update(User).where(User.id == mine.user.id).values(active_model_id=None))
    drop(VersionAlias, VersionAlias.version_id, versions)
    drop(VersionRedirect, VersionRedirect.version_id, versions)
    drop(VersionRedirect, VersionRedirect.old_version_id, versions)
    drop(Activation, Activation.model_id, models)
    drop(Activation, Activation.version_id, versions)
    for table in (ResolveCheck, ProviderSighting, Callback):
        drop(table, table.model_id, models)
    drop(LoraWeights, LoraWeights.user_id, user)
    _forget_objects(session, mine, plan, drop, artifacts, versions)
    drop(ModelVersion, ModelVersion.id, versions)
    drop(ArtifactLocation, ArtifactLocation.artifact_id, artifacts)
    drop(Artifact, Artifact.id, artifacts)
    drop(TrainingRun, TrainingRun.id, runs)
    drop(WebhookDelivery, WebhookDelivery.job_id, jobs)
    drop(SelfieUpload, SelfieUpload.user_id, user)
    drop(ImageSetMember, ImageSetMember.image_set_id, sets)
    drop(ImageSet, ImageSet.id, sets)
    drop(Image, Image.user_id, user)
    drop(IdempotencyKey, IdempotencyKey.user_id, user)
    drop(ApiKey, ApiKey.user_id, user)
    drop(UserModel, UserModel.id, models)
    drop(User, User.id, user)
    return deleted


def _forget_objects(
    session: Session,
    mine: Belongings,
    plan: ErasurePlan,
    drop: Any,
    artifacts: Sequence[int],
    versions: Sequence[int],
) -> None:
    """What listings showed of the weights that go; of shared ones only the copies that go."""
    drop(InventoryObject, InventoryObject.artifact_id, artifacts)
    drop(InventoryObject, InventoryObject.version_id, versions)
    for item in plan.going:
        if item.kind is not Kind.WEIGHTS:
            continue
        for table in (InventoryObject, ArtifactLocation):
            for condition in _at(table, item.target):
                session.execute(delete(table).where(condition))
    del mine


def _at(table: type[InventoryObject] | type[ArtifactLocation], address: str) -> Iterable[ColumnElement[bool]]:
    if address.startswith("file://"):
        key = address.removeprefix("file://")
        yield (table.namespace == "file") & (table.key == key)
        return
    try:
        found = parse_object_url(address)
    except IdentityError:
        return
    if isinstance(found, ObjectAddress):
        ref = found.ref
        here = (table.namespace == ref.namespace) & (table.bucket == ref.bucket) & (table.key == ref.key)
        version = found.version_id and found.version_id.removeprefix(NULL_VERSION)
        yield here if version is None else here & (table.object_version == version)


def _elsewhere(session: Session, mine: Belongings, plan: ErasurePlan, drop: Any) -> None:
    """Rows of bookkeeping that are about several users, or about none by their columns."""
    keys = set(plan.models)
    api_keys = session.scalars(select(ApiKey.name).where(ApiKey.user_id == mine.user.id))
    subjects = [
        *keys,
        *(f"run {run.id}" for run in mine.runs),
        *(f"version {version.id}" for version in mine.versions),
        *(f"LoRA {one.content_key}" for one in mine.artifacts if one.id not in mine.shared),
        *(f"key {name}" for name in api_keys),
    ]
    drop(AuditEntry, AuditEntry.subject, subjects)
    drop(ReviewItem, ReviewItem.subject, subjects)
    drop(OutboxEvent, OutboxEvent.partition, sorted(keys))
    groups = tuple(f"group {version.id}/" for version in mine.versions)
    _forget_merges(session, keys, groups, drop)
    words = {mine.user.id, *keys}
    words |= {text for kind, text in plan.names if kind is Name.EMAIL or (kind is Name.OTHER and "/" in text)}
    words |= {run.training_id for run in mine.runs if run.training_id}
    pattern = _as_words(words)
    # SQLite's JSON spells what is not ASCII.
    likely = sorted({spelled for word in words for spelled in (word, json.dumps(word)[1:-1])})
    for table, columns in (
        (AuditEntry, (AuditEntry.subject, AuditEntry.details)),
        (ReviewItem, (ReviewItem.subject, ReviewItem.details, ReviewItem.resolution)),
        (OutboxEvent, (OutboxEvent.payload,)),
        (BackgroundJob, (BackgroundJob.options, BackgroundJob.message, BackgroundJob.report)),
        (InventoryObject, (InventoryObject.key, InventoryObject.claims, InventoryObject.reason)),
        (WebhookDelivery, (WebhookDelivery.outcome,)),
        (Callback, (Callback.payload, Callback.last_error)),
    ):
        drop(table, table.id, _mentioning(session, table.id, columns, likely, words, pattern))


def _mentioning(
    session: Session,
    row_id: InstrumentedAttribute[Any],
    columns: Sequence[InstrumentedAttribute[Any]],
    likely: Sequence[str],
    words: Collection[str],
    pattern: re.Pattern[str],
) -> set[Any]:
    """The rows that name one of the words: the database narrows them down, the words decide."""
    found: set[Any] = set()
    for start in range(0, len(likely), 50):
        some = [
            cast(column, String).contains(word, autoescape=True)
            for word in likely[start : start + 50]
            for column in columns
        ]
        for row in session.execute(select(row_id, *columns).where(or_(*some))):
            if any(is_mentioned(value, words, pattern) for value in row[1:]):
                found.add(row[0])
    return found


def _as_words(words: Collection[str]) -> re.Pattern[str]:
    """Finds them as whole words: `user-5` is not in `user-50c`, and is in `loras/user-5/x` and `user-5 V3`."""
    telling = [re.escape(word) for word in words if len(word) >= _SHORT and not word.isdigit()]
    # Nothing matches where no word tells anything.
    return re.compile(
        rf"(?<![\w-])(?:{'|'.join(telling) or '(?!)'})(?![a-z0-9-])(?!_(?!v[0-9]))", re.IGNORECASE
    )


def _forget_merges(session: Session, keys: Collection[str], groups: tuple[str, ...], drop: Any) -> None:
    """Merged groups, imported entries and their redirects' journal; what was merged of others stays and can be undone."""
    gone = []
    for row_id, target in session.execute(select(MergeJournal.id, MergeJournal.target)):
        if target.partition("/")[0] in keys or (groups and target.startswith(groups)):
            gone.append(row_id)
    concerned = set()
    for start in range(0, len(gone), _CHUNK):
        some = gone[start : start + _CHUNK]
        concerned |= set(session.scalars(select(MergeJournal.plan_id).where(MergeJournal.id.in_(some))))
    drop(MergeJournal, MergeJournal.id, gone)
    for plan in session.scalars(select(MergePlan)):
        kept = [group for group in plan.groups if group.get("model_key") not in keys]
        if len(kept) != len(plan.groups):
            plan.groups = kept
            concerned.add(plan.id)
    session.flush()
    for plan_id in concerned:
        plan = session.get_one(MergePlan, plan_id)
        left = session.scalars(
            select(MergeJournal.id).where(MergeJournal.plan_id == plan_id).limit(1)
        ).first()
        if left is None and not plan.groups:
            session.delete(plan)
    session.flush()
