"""Reading what an erasure would delete: every file, every place of weights, everything at a provider. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    ArtifactLocation,
    InventoryObject,
    MergeJournal,
    MergePlan,
    ModelVersion,
    SelfieUpload,
    TrainingRun,
    User,
    UserModel,
    VersionAlias,
)
from lora_pipeline.erasure.belongings import Belongings, belongings
from lora_pipeline.erasure.names import Name
from lora_pipeline.erasure.overwritten import overwritten_items
from lora_pipeline.erasure.plan import SIMULATED, ErasurePlan, Item, Kind, Lying, weights_items
from lora_pipeline.identity import ObjectRef
from lora_pipeline.image_sets.names import path_segment
from lora_pipeline.lineage.node_ids import Place, address_of, place_of

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections

PROVIDER_FILE_LIFE = timedelta(hours=24)
RUNPOD_RESULT_LIFE = timedelta(minutes=30)
# Names such as V7, which every model's old entries have.
_TELLS_NOTHING = re.compile(r"[vV]*[0-9]*|.{1,5}")
_RECORD_STAYS = (
    "Replicate keeps the record of a training and offers no request that deletes it; it holds parameters, a log, and "
    "addresses of files that are gone"
)
_RESULT_STAYS = "RunPod forgets a job's result by itself"


def plan_erasure(session: Session, connections: Connections, user: User, now: datetime) -> ErasurePlan:
    """Everything that is this user's. Reads rows only."""
    mine = belongings(session, user)
    store = connections.store
    items = [
        *_files(mine, connections),
        *_weights(session, mine, connections),
        *_at_providers(session, mine, now),
        *_folders(mine),
    ]
    keys = tuple(model.model_key for model in mine.models)
    items += [Item(Kind.INBOX, key) for key in keys] + [Item(Kind.PARTITION, key) for key in keys]
    uploads = session.scalars(select(SelfieUpload.original_url).where(SelfieUpload.user_id == user.id))
    inbox = connections.inbox
    outside = {
        url
        for url in uploads
        if not url.startswith("upload:") and inbox.key_of(url) is None and store.key_of(url) is None
    }
    outside |= set(_imported_files(session, keys))
    unique = sorted(dict.fromkeys(items), key=lambda one: (list(Kind).index(one.kind), one.target))
    return ErasurePlan(
        user_id=user.id,
        models=keys,
        items=tuple(unique),
        outside=tuple(sorted(outside)),
        rows=_counts(mine),
        names=frozenset(_names(session, mine)),
    )


def _files(mine: Belongings, connections: Connections) -> Iterator[Item]:
    address = connections.store.address
    for image in mine.images:
        if image.deleted_at is None:
            yield Item(Kind.ORIGINAL, address(image.object_key), image.sha256)
            if image.normalised_key:
                yield Item(Kind.NORMALISED, address(image.normalised_key), image.normalised_sha256)
    for one in mine.sets:
        if one.manifest_key:
            yield Item(Kind.MANIFEST, address(one.manifest_key))
        if one.contact_sheet_key:
            yield Item(Kind.CONTACT_SHEET, address(one.contact_sheet_key))
    for run in mine.runs:
        if run.zip_key and run.zip_deleted_at is None:
            yield Item(Kind.TRAINING_ZIP, address(run.zip_key), run.zip_sha256)


def _folders(mine: Belongings) -> Iterator[Item]:
    """Where more may lie than any row knows: what a crash left, and what an intake stored a moment ago."""
    yield Item(Kind.FOLDER, f"users/{path_segment(mine.user.id)}")
    for one in mine.sets:
        yield Item(Kind.FOLDER, f"sets/{one.id}")
    for run in mine.runs:
        yield Item(Kind.FOLDER, f"submissions/{run.token}")
        yield Item(Kind.FOLDER, f"trained/{run.token}")
    for model in mine.models:
        yield Item(Kind.FOLDER, f"loras/{model.model_key}")


def _weights(session: Session, mine: Belongings, connections: Connections) -> Iterator[Item]:
    own_folders = tuple(connections.store.address(f"loras/{model.model_key}/x")[:-1] for model in mine.models)
    places: dict[int | None, dict[str, Lying]] = {}
    spelled: dict[str, str] = {}

    def lies(artifact: int | None, address: str, sha256: str | None) -> None:
        found = Lying(address, sha256, address.startswith(own_folders) if own_folders else False)
        places.setdefault(artifact, {}).setdefault(address, found)

    hashes = {artifact.id: artifact.file_sha256 for artifact in mine.artifacts}
    for row in session.scalars(
        select(ArtifactLocation).where(
            ArtifactLocation.artifact_id.in_(hashes), ArtifactLocation.deleted_at.is_(None)
        )
    ):
        # An object is deleted with all its versions: the place is one.
        address = address_of(Place(ObjectRef(row.namespace, row.bucket, row.key)))
        lies(row.artifact_id, address, hashes[row.artifact_id])
    for found_row in session.scalars(
        # Behind a deletion marker an older version still has the bytes.
        select(InventoryObject).where(InventoryObject.artifact_id.in_(hashes), InventoryObject.listed)
    ):
        ref = ObjectRef(found_row.namespace, found_row.bucket, found_row.key)
        lies(found_row.artifact_id, address_of(Place(ref)), hashes[found_row.artifact_id or 0])
    for version in mine.versions:
        place = place_of(version.weights_url or "")
        if place is not None:
            # One object, however its address is spelled. A provider's own address is none, and ends by itself.
            address = address_of(Place(place.ref))
            lies(version.artifact_id, address, hashes.get(version.artifact_id or 0))
            spelled[str(version.weights_url)] = address
    spelled |= {address: address for found in places.values() for address in found}
    others = {spelled[one] for one in _named_by_others(session, mine, spelled)}
    elsewhere = _overwritten(session, mine, places)
    for address in elsewhere:
        yield from elsewhere[address]
    for artifact, found in places.items():
        lying = [one for one in found.values() if one.address not in elsewhere]
        yield from weights_items(lying, shared=artifact in mine.shared, named_by_others=others)


def _overwritten(
    session: Session, mine: Belongings, places: Mapping[int | None, Mapping[str, Lying]]
) -> dict[str, list[Item]]:
    """Address → what becomes of it, where other bytes lie now. In the user's own folders everything is theirs."""
    unsure = set(places.get(None, ()))
    addresses = {
        address
        for found in places.values()
        for address, lying in found.items()
        if not lying.in_own_folder and address not in unsure
    }
    refs = {place.ref: address for address in addresses if (place := place_of(address)) is not None}
    return {refs[ref]: items for ref, items in overwritten_items(session, mine, refs).items()}


def _named_by_others(session: Session, mine: Belongings, addresses: Collection[str]) -> set[str]:
    """Those of the addresses that another user's version, model or alias names."""
    own = [version.id for version in mine.versions]
    models = [model.id for model in mine.models]
    found: set[str] = set()
    for column, condition in (
        (ModelVersion.weights_url, ModelVersion.id.not_in(own)),
        (UserModel.lora_weights_url, UserModel.id.not_in(models)),
        (VersionAlias.alias, VersionAlias.version_id.not_in(own)),
    ):
        found |= {
            one for one in session.scalars(select(column).where(column.in_(addresses), condition)) if one
        }
    return found


def _at_providers(session: Session, mine: Belongings, now: datetime) -> Iterator[Item]:
    models: dict[str, bool] = {}
    for version in mine.versions:
        if version.provider == "replicate" and version.provider_version:
            mark = SIMULATED if version.simulated else ""
            yield Item(Kind.PROVIDER_VERSION, mark + version.provider_version)
            models.setdefault(version.provider_version.partition(":")[0], version.simulated)
    for run in mine.runs:
        yield from _of_run(run, now)
        if run.provider == "replicate":
            models.setdefault(run.destination, run.simulated)
    for model in mine.models:
        if model.replicate_model_id:
            models.setdefault(model.replicate_model_id, False)
    for name in sorted(models):
        if not _is_anothers(session, mine, name):
            yield Item(Kind.PROVIDER_MODEL, (SIMULATED if models[name] else "") + name)


def _of_run(run: TrainingRun, now: datetime) -> Iterator[Item]:
    mark = SIMULATED if run.simulated else ""
    if run.provider_file_id and run.zip_deleted_at is None:
        expires = (run.post_started_at or run.created_at) + PROVIDER_FILE_LIFE
        if expires > now:
            yield Item(Kind.PROVIDER_FILE, f"{mark}{run.provider_file_id}", run.zip_sha256, until=expires)
    if not run.training_id or run.simulated:
        return
    if run.provider == "replicate":
        yield Item(Kind.PROVIDER_TRAINING, run.training_id, stays=_RECORD_STAYS)
    elif (gone := (run.completed_at or now) + RUNPOD_RESULT_LIFE) > now:
        yield Item(Kind.PROVIDER_TRAINING, run.training_id, stays=_RESULT_STAYS, until=gone)


def _is_anothers(session: Session, mine: Belongings, name: str) -> bool:
    """Whether the provider's model is another user's too: then only the user's own versions go."""
    own_versions = [version.id for version in mine.versions]
    questions = (
        select(UserModel.id).where(UserModel.replicate_model_id == name, UserModel.user_id != mine.user.id),
        select(TrainingRun.id).where(TrainingRun.destination == name, TrainingRun.user_id != mine.user.id),
        select(ModelVersion.id).where(
            ModelVersion.provider_version.startswith(f"{name}:", autoescape=True),
            ModelVersion.id.not_in(own_versions),
        ),
    )
    return any(session.scalars(question.limit(1)).first() is not None for question in questions)


def _imported_files(session: Session, keys: Iterable[str]) -> Iterator[str]:
    """The older application's files that an import read this user's entries from: theirs to mend."""
    targets = [f"{key}/" for key in keys]
    rows = session.execute(
        select(MergeJournal.after, MergePlan.scope)
        .join(MergePlan, MergePlan.id == MergeJournal.plan_id)
        .where(MergeJournal.target.in_(targets))
    )
    for after, scope in rows:
        yield f"{scope.removeprefix('import training-versions ')}/{after.get('path', '')}"


def _counts(mine: Belongings) -> dict[str, int]:
    return {
        "user_models": len(mine.models),
        "images": len(mine.images),
        "image_sets": len(mine.sets),
        "training_runs": len(mine.runs),
        "model_versions": len(mine.versions),
        "artifacts": len(mine.artifacts) - len(mine.shared),
    }


def _names(session: Session, mine: Belongings) -> Iterator[tuple[Name, str]]:
    """Everything that the user and what is theirs were called. What others still have is not theirs alone."""
    user = mine.user
    yield Name.USER, user.id
    yield Name.FOLDER, path_segment(user.id)
    if user.email:
        yield Name.EMAIL, user.email
    for model in mine.models:
        yield Name.MODEL, model.model_key
        if model.replicate_model_id:
            yield Name.OTHER, model.replicate_model_id
    for run in mine.runs:
        yield Name.OTHER, run.token
        if run.training_id:
            yield Name.OTHER, run.training_id
    own = [version.id for version in mine.versions]
    for version in mine.versions:
        if version.provider_version:
            yield Name.OTHER, version.provider_version
            yield Name.OTHER, version.provider_version.rpartition(":")[2]
    for alias in session.scalars(select(VersionAlias.alias).where(VersionAlias.version_id.in_(own))):
        if _TELLS_NOTHING.fullmatch(alias):
            continue
        yield Name.OTHER, alias
        yield Name.OTHER, alias.removeprefix("replicate:").removeprefix("runpod:")
    for artifact in mine.artifacts:
        if artifact.id not in mine.shared:
            yield Name.CONTENT, artifact.content_key
