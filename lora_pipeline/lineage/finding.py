"""From any id to the nodes that it means: surely first, by what indexes find; only then by reading whole tables.

An id may be read in several ways at once. Where they lead to different things nobody guesses: the error lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    ImageSet,
    ModelVersion,
    TrainingRun,
    User,
    UserModel,
    VersionAlias,
)
from lora_pipeline.erasure.names import erased
from lora_pipeline.identity import (
    IdentityError,
    JobId,
    VersionRef,
    parse_job_id,
    parse_model,
    parse_version,
)
from lora_pipeline.lineage.addresses import of_address, of_unlisted_address
from lora_pipeline.lineage.graph import Kind
from lora_pipeline.lineage.hashes import of_hash
from lora_pipeline.lineage.meanings import LineageNotFound, Meaning, not_found, only_meaning
from lora_pipeline.lineage.node_ids import node_id, read_node_id
from lora_pipeline.lineage.reading import read_lineage
from lora_pipeline.lineage.rows import Scope
from lora_pipeline.versions.version_lookup import VersionNotFound, find_version, spelled_otherwise

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_TOKEN = re.compile(r"[0-9a-f]{32}|[0-9a-f-]{36}")
# `user-50c:V3`, `user-50c V3`, `user-50c_V3.safetensors`, `user-50c/vV3`; a bare number only after a colon.
_NAMED_VERSION = re.compile(
    r"(?P<model>\S.*?)(?:[\s:/_-]+(?=[vV])|:)(?P<version>[vV]{0,2}[0-9]{1,6})(?:\.safetensors)?"
)
_USER = "user:"
_MODEL = f"{Kind.MODEL}:"
_OBJECT = f"{Kind.OBJECT}:"
_WORDS = {
    Kind.IMAGE: "a photograph",
    Kind.SET: "an image set",
    Kind.ZIP: "a training ZIP",
    Kind.RUN: "a training",
    Kind.VERSION: "a registered version",
    Kind.ARTIFACT: "weights",
    Kind.MODEL: "a model",
}


def find(session: Session, text: str, scope: Scope) -> Meaning:
    """The one thing that `text` means.

    Raises LineageNotFound and AmbiguousId. What lies outside the scope is not found, in the same words.
    """
    wanted = text.strip()
    node = read_node_id(wanted)
    if node is not None:
        return Meaning(f"the id of {_WORDS[node[0]]}", (wanted,), wanted)
    for readings in (_by_index(session, wanted, scope), _by_reading_all(session, wanted, scope)):
        meanings = [meaning for one in readings if (meaning := _in_scope(session, one, scope)) is not None]
        meaning = only_meaning(wanted, meanings)
        if meaning is not None:
            return meaning
    raise nothing_known(session, wanted, scope)


def nothing_known(session: Session, wanted: str, scope: Scope) -> LineageNotFound:
    """The error for an id that means nothing, or nothing any more."""
    named = wanted.removeprefix(_USER).removeprefix(_MODEL)
    gone = erased(session, named) if scope.user_id is None else None
    return not_found(wanted) if gone is None else LineageNotFound(f"what was known under this id was {gone}")


def _in_scope(session: Session, meaning: Meaning, scope: Scope) -> Meaning | None:
    """The meaning with those of its nodes that may be seen; None where there are none."""
    if scope.user_id is None:
        return meaning
    seen = read_lineage(session, meaning.nodes, scope, up=False, down=False).nodes
    nodes = tuple(node for node in meaning.nodes if node in seen)
    return Meaning(meaning.words, nodes, meaning.identity) if nodes else None


def _by_index(session: Session, wanted: str, scope: Scope) -> Iterator[Meaning]:
    yield from of_hash(session, wanted, scope)
    yield from of_address(session, wanted.removeprefix(_OBJECT), scope)
    yield from _of_number(session, wanted)
    yield from _of_job(session, wanted)
    yield from _of_token(session, wanted)
    yield from _of_provider_version(session, wanted)
    yield from _of_named_version(session, wanted)
    yield from _of_old_id(session, wanted)
    yield from _of_external_id(session, wanted)
    yield from _of_models(session, wanted)


def _by_reading_all(session: Session, wanted: str, scope: Scope) -> Iterator[Meaning]:
    yield from _of_version_hash(session, wanted)
    yield from of_unlisted_address(session, wanted, scope.rules)
    if wanted:
        runs = select(TrainingRun.id).where(TrainingRun.provider_file_id == wanted)
        for run in session.scalars(runs):
            yield Meaning("the provider's file of a dataset", (node_id(Kind.RUN, run),), wanted)


def _of_number(session: Session, wanted: str) -> Iterator[Meaning]:
    if not _NUMBER.fullmatch(wanted):
        return
    number = int(wanted)
    for kind, column in (
        (Kind.SET, ImageSet.id),
        (Kind.RUN, TrainingRun.id),
        (Kind.VERSION, ModelVersion.id),
    ):
        if session.scalars(select(column).where(column == number)).first() is not None:
            yield Meaning(f"the number of {_WORDS[kind]}", (node_id(kind, number),), f"{kind} {number}")


def _of_job(session: Session, wanted: str) -> Iterator[Meaning]:
    """The provider's job, word for word; of RunPod's only where that finds none, by what its suffixes share."""
    try:
        job = parse_job_id(wanted.removeprefix("replicate:").removeprefix("runpod:"))
    except IdentityError:
        return
    exact = list(_of_this_job(session, job))
    yield from exact
    if exact:
        return
    for text in sorted(spelled_otherwise(session, job)):
        yield from _of_this_job(session, parse_job_id(text))


def _of_this_job(session: Session, job: JobId) -> Iterator[Meaning]:
    words, identity = f"the {job.provider} job", f"{job.provider}:{job.text}"
    run = session.execute(
        select(TrainingRun.id).where(
            TrainingRun.provider == job.provider, TrainingRun.training_id == job.text
        )
    ).scalar()
    if run is not None:
        yield Meaning(f"{words} {job.text} of training {run}", (node_id(Kind.RUN, run),), identity)
        return
    version = session.scalars(
        select(VersionAlias.version_id).where(
            VersionAlias.kind == "training_id", VersionAlias.alias == identity
        )
    ).first()
    if version is not None:
        yield Meaning(f"{words} {job.text} of a version", (node_id(Kind.VERSION, version),), identity)


def _of_token(session: Session, wanted: str) -> Iterator[Meaning]:
    if _TOKEN.fullmatch(wanted):
        for run in session.scalars(select(TrainingRun.id).where(TrainingRun.token == wanted)):
            yield Meaning("the token of a training", (node_id(Kind.RUN, run),), wanted)


def _version_ref(wanted: str) -> VersionRef | None:
    try:
        return parse_version(wanted)
    except IdentityError:
        return None


def _of_provider_version(session: Session, wanted: str) -> Iterator[Meaning]:
    ref = _version_ref(wanted)
    if ref is None or ref.owner is None:
        return
    versions = {
        *session.scalars(select(ModelVersion.id).where(ModelVersion.provider_version == str(ref))),
        *session.scalars(
            select(VersionAlias.version_id).where(
                VersionAlias.kind == "provider_version", VersionAlias.alias == str(ref)
            )
        ),
    }
    for version in sorted(versions):
        yield Meaning("a provider version", (node_id(Kind.VERSION, version),), f"version {version}")


def _of_version_hash(session: Session, wanted: str) -> Iterator[Meaning]:
    """A version written without its owner: no index knows the hash by itself."""
    ref = _version_ref(wanted)
    if ref is None:
        return
    ending = f":{ref.hash}" if ref.name is None else f"/{ref.name}:{ref.hash}"
    found = session.scalars(
        select(ModelVersion.id).where(ModelVersion.provider_version.endswith(ending, autoescape=True))
    )
    for version in found:
        yield Meaning("a provider version", (node_id(Kind.VERSION, version),), f"version {version}")


def _of_named_version(session: Session, wanted: str) -> Iterator[Meaning]:
    """A version of a model, by its number. A merged one leads to the version that took its place."""
    named = _NAMED_VERSION.fullmatch(wanted)
    models = _models_called(session, named["model"]) if named else []
    if named is None or len(models) != 1:
        return
    number = int(named["version"].lstrip("vV"))
    try:
        version = find_version(session, models[0], f"V{number}")
    except VersionNotFound:
        return
    merged = "" if version.number == number else f", which was merged into V{version.number}"
    words = f"V{number} of {models[0].model_key}{merged}"
    yield Meaning(words, (node_id(Kind.VERSION, version.id),), f"version {version.id}")


def _of_old_id(session: Session, wanted: str) -> Iterator[Meaning]:
    """An entry's id in an old system: names of files, which several models may have."""
    old = select(VersionAlias.version_id).where(
        # A range, because the kind names the model too.
        VersionAlias.kind >= "legacy_id",
        VersionAlias.kind < "legacy_ie",
        VersionAlias.alias == wanted,
    )
    for version in session.scalars(old.order_by(VersionAlias.version_id)):
        yield Meaning("an old entry's id", (node_id(Kind.VERSION, version),), f"version {version}")


def _of_external_id(session: Session, wanted: str) -> Iterator[Meaning]:
    sets = session.scalars(select(ImageSet.id).where(ImageSet.external_id == wanted).order_by(ImageSet.id))
    nodes = tuple(node_id(Kind.SET, one) for one in sets)
    if nodes and wanted:
        yield Meaning("the external id of an image set", nodes, f"external {wanted}")


def _of_models(session: Session, wanted: str) -> Iterator[Meaning]:
    models = _models_called(session, wanted)
    if models:
        nodes = tuple(node_id(Kind.MODEL, model.model_key) for model in models)
        words = "a model" if models[0].model_key == wanted else "a user or the provider's name of a model"
        yield Meaning(words, nodes, "models")


def _models_called(session: Session, wanted: str) -> list[UserModel]:
    """The model of this key; else all models of this user (id or e-mail) or of this name at the provider."""
    everyone = select(UserModel).join(User, User.id == UserModel.user_id).order_by(UserModel.id)
    user = wanted.removeprefix(_USER)
    conditions = [] if user != wanted else [UserModel.model_key == wanted]
    conditions.append(User.id == user)
    if "@" in user:
        conditions += [User.email.in_([user, user.lower()]), func.lower(User.email) == user.lower()]
    elif "/" in wanted:
        with suppress(IdentityError):
            conditions.append(UserModel.replicate_model_id == str(parse_model(wanted)))
    for condition in conditions:
        found = session.scalars(everyone.where(condition)).all()
        if found:
            return list(found)
    return []
