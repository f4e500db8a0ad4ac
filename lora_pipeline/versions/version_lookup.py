"""Which version of a model somebody means: its number, any spelling of its provider version, or another name.

Which *model* is meant is `lookup`'s question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ModelVersion, TrainingRun, UserModel, VersionAlias, VersionRedirect
from lora_pipeline.identity import (
    IdentityError,
    JobId,
    ObjectAddress,
    ObjectRef,
    VersionRef,
    object_uri,
    parse_job_id,
    parse_object_url,
    parse_version,
)
from lora_pipeline.identity.errors import shown
from lora_pipeline.identity.kinds import kind_of

_NUMBER = re.compile(r"[vV]{0,2}0*([1-9][0-9]{0,5})")
_NAME_ENDING = re.compile(r"[_ -][vV]{1,2}0*([1-9][0-9]{0,5})(?:\.safetensors)?")
_EXPECTED = (
    "its number (3 or V3), its provider version (owner/name:hash or the 64-digit hash), its training's id "
    "or the address of its weights"
)


class VersionNotFound(LookupError):
    """The model has no such version; the message says what was got, what it has, and what to write."""


@dataclass(frozen=True)
class NamedVersion:
    """A version with everything that it is called."""

    version_id: int
    number: int
    provider_version: str | None
    aliases: tuple[tuple[str, str], ...] = ()
    """(kind, alias) pairs."""


def find_version(session: Session, model: UserModel, text: str) -> ModelVersion:
    """The version of `model` that `text` means; a merged version leads to the one that took its place.

    Raises VersionNotFound, also where the text names another model's version.
    """
    wanted = text.strip()
    known = _named_versions(session, model.id)
    found = match_version(wanted, model.model_key, known)
    if found is None:
        raise VersionNotFound(_unknown(session, model, wanted, known))
    return session.get_one(ModelVersion, _survivor(session, found))


def match_version(wanted: str, model_key: str, known: Iterable[NamedVersion]) -> int | None:
    """The id of the version that `wanted` names, or None. A name of several versions names none of them."""
    known = list(known)
    for matches in _readings(wanted, model_key):
        found = {version.version_id for version in known if matches(version)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _readings(wanted: str, model_key: str) -> Iterator[Callable[[NamedVersion], bool]]:
    """What the text can mean, surest first."""
    bare = _NUMBER.fullmatch(wanted)
    if bare:
        yield lambda version: version.number == int(bare[1])
        return
    # An old id such as style_1_vV7 need not have become number 7: whose id it is comes before how it reads.
    names = {wanted, wanted.removesuffix(".safetensors")}
    yield lambda version: any(alias in names for _, alias in version.aliases)
    number = _number_in_name(wanted, model_key)
    if number is not None:
        yield lambda version: version.number == number
        return
    ref = _version_ref(wanted)
    if ref is not None:
        yield lambda version: _same_version(version, ref)
    job = _job_aliases(wanted)
    if job:
        yield lambda version: any(kind == "training_id" and alias in job for kind, alias in version.aliases)
        # One side may have lost a RunPod job's suffix.
        yield lambda version: bool(job & _base_aliases(version))
    place = _place(wanted)
    if place is not None:
        yield lambda version: any(
            kind == "object" and _place(alias) == place for kind, alias in version.aliases
        )


def _number_in_name(wanted: str, model_key: str) -> int | None:
    """3 for `user-50c_V3` where that is this model: another model's name must not pass for it."""
    name = wanted[len(model_key) :] if wanted.lower().startswith(model_key.lower()) else ""
    found = _NAME_ENDING.fullmatch(name)
    return int(found[1]) if found else None


def _version_ref(wanted: str) -> VersionRef | None:
    try:
        return parse_version(wanted)
    except IdentityError:
        return None


def _same_version(version: NamedVersion, ref: VersionRef) -> bool:
    own = _version_ref(version.provider_version or "")
    spellings = [own, *(_version_ref(alias) for kind, alias in version.aliases if kind == "provider_version")]
    return any(
        one is not None
        and one.hash == ref.hash
        and ref.owner in (None, one.owner)
        and ref.name in (None, one.name)
        for one in spellings
    )


def _job_aliases(wanted: str) -> frozenset[str]:
    """How the job is written among the aliases: word for word, and by what every spelling of it shares."""
    try:
        job = _job(wanted)
    except IdentityError:
        return frozenset()
    return frozenset({f"{job.provider}:{job.text}", f"{job.provider}:{job.base}"})


def _job(wanted: str) -> JobId:
    return parse_job_id(wanted.removeprefix("replicate:").removeprefix("runpod:"))


def _base_aliases(version: NamedVersion) -> frozenset[str]:
    jobs = [alias for kind, alias in version.aliases if kind == "training_id"]
    return frozenset(name for alias in jobs for name in _job_aliases(alias))


def _place(address: str) -> ObjectRef | str | None:
    """What an address points at, however it is spelled; None where it is no address."""
    if address.startswith("file://"):
        return address
    if "://" not in address:
        return None
    try:
        parsed = parse_object_url(address)
    except IdentityError:
        return None
    return parsed.ref if isinstance(parsed, ObjectAddress) else None


def _addresses(wanted: str) -> set[str]:
    """How an object's address may stand among the aliases: word for word, and as everybody writes it."""
    place = _place(wanted)
    with suppress(IdentityError):
        return {wanted, object_uri(place)} if isinstance(place, ObjectRef) else {wanted}
    return {wanted}


def _named_versions(session: Session, model_id: int) -> list[NamedVersion]:
    """The model's versions with their names, merged ones included."""
    names: dict[int, list[tuple[str, str]]] = {}
    for version_id, kind, alias in session.execute(
        select(VersionAlias.version_id, VersionAlias.kind, VersionAlias.alias)
        .join(ModelVersion, ModelVersion.id == VersionAlias.version_id)
        .where(ModelVersion.model_id == model_id)
    ):
        names.setdefault(version_id, []).append((kind, alias))
    return [
        NamedVersion(version_id, number, provider_version, tuple(names.get(version_id, ())))
        for version_id, number, provider_version in session.execute(
            select(ModelVersion.id, ModelVersion.number, ModelVersion.provider_version)
            .where(ModelVersion.model_id == model_id)
            .order_by(ModelVersion.number)
        )
    ]


def _unknown(session: Session, model: UserModel, wanted: str, known: list[NamedVersion]) -> str:
    has = ", ".join(f"V{version.number}" for version in known) or "no version yet"
    owner = _whose(session, wanted)
    if owner is not None and owner != model.model_key:
        return (
            f"{shown(wanted)} is a version of {owner}, not of {model.model_key}, which has {has}. "
            f"Name one of those, or: lora-pipeline versions {owner}"
        )
    return f"{model.model_key} has no version {shown(wanted)}; it has {has}. Expected {_EXPECTED}{_instead(wanted)}"


def _whose(session: Session, wanted: str) -> str | None:
    """The key of the model that the text names a version of, as far as indexes tell."""
    named = versions_named(session, wanted)
    if named:
        return session.get_one(UserModel, named[0].model_id).model_key
    ref = _version_ref(wanted)
    if ref is None:
        return None
    found = select(UserModel.model_key).join(ModelVersion, ModelVersion.model_id == UserModel.id)
    return session.scalar(found.where(ModelVersion.provider_version.endswith(f":{ref.hash}")).limit(1))


def versions_named(session: Session, text: str) -> list[ModelVersion]:
    """The versions, of whichever model, that have this text among their other names; merged ones as what they became.

    Only what an index finds: a job's id (of RunPod's also without its suffix), the address of an object,
    `owner/name:hash`, an old entry's id.
    """
    wanted = text.strip()
    ref = _version_ref(wanted)
    jobs = _job_aliases(wanted)
    surely = [("training_id", alias) for alias in jobs]
    surely += [("object", address) for address in _addresses(wanted)]
    if ref is not None:
        surely.append(("provider_version", str(ref)))
    aliases = [and_(VersionAlias.kind == kind, VersionAlias.alias == alias) for kind, alias in surely]
    # A range, because the kind of an old entry's id names its model too.
    old = and_(VersionAlias.kind >= "legacy_id", VersionAlias.kind < "legacy_ie")
    aliases.append(and_(old, VersionAlias.alias.in_([wanted, wanted.removesuffix(".safetensors")])))
    found = session.scalars(select(VersionAlias.version_id).where(or_(*aliases))).all()
    if not found and jobs:
        known = [f"runpod:{text}" for text in spelled_otherwise(session, _job(wanted))]
        of_job = and_(VersionAlias.kind == "training_id", VersionAlias.alias.in_(known))
        found = session.scalars(select(VersionAlias.version_id).where(of_job)).all()
    survivors = dict.fromkeys(_survivor(session, version_id) for version_id in found)
    return [session.get_one(ModelVersion, version_id) for version_id in survivors]


def spelled_otherwise(session: Session, job: JobId) -> set[str]:
    """The RunPod jobs that are known, of runs or of versions, under another spelling of this one's base."""
    found: set[str] = set()
    if job.provider != "runpod":
        return found
    for start in (job.base, job.base.upper(), f"sync-{job.base}", f"sync-{job.base.upper()}"):
        # Every suffix sorts before zz, in every collation.
        runs = select(TrainingRun.training_id).where(
            TrainingRun.provider == "runpod",
            TrainingRun.training_id >= start,
            TrainingRun.training_id < f"{start}zz",
        )
        aliases = select(VersionAlias.alias).where(
            VersionAlias.kind == "training_id",
            VersionAlias.alias >= f"runpod:{start}",
            VersionAlias.alias < f"runpod:{start}zz",
        )
        found |= {text for text in session.scalars(runs) if text}
        found |= {alias.removeprefix("runpod:") for alias in session.scalars(aliases)}
    return {text for text in found if f"runpod:{job.base}" in _job_aliases(text)}


def _survivor(session: Session, version_id: int) -> int:
    redirect = session.get(VersionRedirect, version_id)
    return version_id if redirect is None else redirect.version_id


def _instead(wanted: str) -> str:
    """What a text is, where it looks like something: a short hash, a model, an e-mail address …"""
    kind = kind_of(wanted)
    named = kind.name in ("hash", "version", "training_id", "runpod_id", "other")
    return "" if named else f". It looks like {kind.words}"
