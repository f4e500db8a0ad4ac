"""What the registry knows that may be a found LoRA: every version and run that shares a strong id with it.

Asked for many objects at once, a handful of queries for all of them, each by an index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Artifact,
    ModelVersion,
    TrainingRun,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.identity import (
    IdentityError,
    JobId,
    ObjectAddress,
    ObjectRef,
    ObjectUrlRules,
    parse_object_url,
)
from lora_pipeline.inventory.back_fill import FoundLora, KnownLora, KnownRun
from lora_pipeline.inventory.registry_versions import KnownVersion, read_these_versions
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState

# What RunPod puts behind a job's id; either side may have lost it, and each is asked for by its whole name.
_SUFFIXES = ("", "-e1", "-e2", "-u1", "-u2")
_AT_ONCE = 400
_READ = 1_000
_TOKEN = "token"  # noqa: S105

Item = TypeVar("Item", int, str)


class Known(NamedTuple):
    """What shares a strong id with one object."""

    versions: tuple[KnownLora, ...]
    runs: tuple[KnownRun, ...]


Addresses = Mapping[ObjectRef, frozenset[int]]
"""Object → the versions whose address leads to it, for addresses in a spelling that no index finds."""


def known_of(
    session: Session, found: Sequence[FoundLora], rules: ObjectUrlRules, addresses: Addresses
) -> list[Known]:
    """For each object what the registry knows of it. Merged versions are given as the one that took their place."""
    runs = _runs(session, found)
    by_run = _versions_of_runs(session, [run.id for run in runs.values()])
    by_content = _by_content(session, {one.content_key for one in found})
    own = [_carried(one, runs) for one in found]
    names = [[*_names(one, rules), *map(_job_name, carried)] for one, carried in zip(found, own, strict=True)]
    by_alias = _by_alias(session, [name for some in names for name in some])
    wanted: list[set[int]] = []
    for one, carried, called in zip(found, own, names, strict=True):
        ids = by_content.get(one.content_key, set()) | set(addresses.get(one.ref, ()))
        ids = ids.union(*(by_alias.get(name, set()) for name in called))
        wanted.append(ids.union(*(by_run.get(run.id, set()) for run in carried)))
    versions = _read(session, set().union(*wanted), rules)
    return [
        Known(
            tuple(dict.fromkeys(versions[one] for one in sorted(ids) if one in versions)),
            tuple(_known_run(run) for run in carried if run.id not in by_run and _is_unresolved(run)),
        )
        for ids, carried in zip(wanted, own, strict=True)
    ]


def addresses_in_other_spellings(
    session: Session, refs: frozenset[ObjectRef], rules: ObjectUrlRules
) -> Addresses:
    """Which versions lead to these objects by an address that is not written as `s3://bucket/key`.

    Imports keep addresses word for word, so all of them are read, a thousand at a time.
    """
    found: dict[ObjectRef, set[int]] = defaultdict(set)
    for statement in (
        select(VersionAlias.version_id, VersionAlias.alias).where(
            VersionAlias.kind == "object", _otherwise_spelled(VersionAlias.alias)
        ),
        select(ModelVersion.id, ModelVersion.weights_url).where(_otherwise_spelled(ModelVersion.weights_url)),
    ):
        for version_id, address in session.execute(statement).yield_per(_READ):
            ref = _ref(str(address), rules)
            if ref is not None and ref in refs:
                found[ref].add(version_id)
    return {ref: frozenset(versions) for ref, versions in found.items()}


def _otherwise_spelled(column: Any) -> Any:
    usual = column.like("s3://%") | column.like("file://%") | column.like("https://replicate.delivery/%")
    return column.is_not(None) & ~usual


def _ref(address: str, rules: ObjectUrlRules) -> ObjectRef | None:
    try:
        parsed = parse_object_url(address, rules)
    except IdentityError:
        return None
    return parsed.ref if isinstance(parsed, ObjectAddress) else None


def _job_texts(job: JobId) -> Iterator[str]:
    yield job.text
    if job.provider == "runpod":
        yield from (job.base + suffix for suffix in _SUFFIXES)


def _marks(found: FoundLora) -> Iterator[tuple[str, str]]:
    """What a training run may have in common with the object: (`token` or the provider, the text)."""
    if found.token is not None:
        yield _TOKEN, found.token
    if found.job is not None:
        yield from ((found.job.provider, text) for text in _job_texts(found.job))


def _names(found: FoundLora, rules: ObjectUrlRules) -> Iterator[tuple[str, str]]:
    """(kind, alias) of what a version of this LoRA may be called."""
    if found.job is not None:
        yield from (("training_id", f"{found.job.provider}:{text}") for text in _job_texts(found.job))
    if found.ref.namespace == rules.s3_namespace:
        yield from (("object", f"s3://{found.ref.bucket}/{key}") for key in _former_keys(found.ref, rules))


def _former_keys(ref: ObjectRef, rules: ObjectUrlRules) -> Iterator[str]:
    """The object's key, and what it was called before each rename of its folder."""
    keys = {ref.key: None}
    for rename in reversed(rules.renames):
        new, old = rename.new.removesuffix("/") + "/", rename.old.removesuffix("/") + "/"
        if (rename.namespace, rename.bucket) == (ref.namespace, ref.bucket):
            keys |= {old + key[len(new) :]: None for key in list(keys) if key.startswith(new)}
    yield from (key for key in keys if rules.renamed(ObjectRef(ref.namespace, ref.bucket, key)) == ref)


def _runs(session: Session, found: Iterable[FoundLora]) -> dict[tuple[str, str], TrainingRun]:
    """Mark → the training run that has it."""
    marks = {mark for one in found for mark in _marks(one)}
    runs: dict[tuple[str, str], TrainingRun] = {}
    for kind in {kind for kind, _ in marks}:
        texts = sorted(text for one, text in marks if one == kind)
        column = TrainingRun.token if kind == _TOKEN else TrainingRun.training_id
        for some in _chunks(texts):
            statement = select(TrainingRun).where(column.in_(some))
            if kind != _TOKEN:
                statement = statement.where(TrainingRun.provider == kind)
            for run in session.scalars(statement):
                runs[kind, str(run.token if kind == _TOKEN else run.training_id)] = run
    return runs


def _versions_of_runs(session: Session, run_ids: Sequence[int]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for some in _chunks(run_ids):
        statement = select(ModelVersion.training_run_id, ModelVersion.id)
        for run_id, version_id in session.execute(statement.where(ModelVersion.training_run_id.in_(some))):
            found[int(run_id or 0)].add(version_id)
    return found


def _by_content(session: Session, keys: Iterable[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for some in _chunks(sorted(keys)):
        statement = select(Artifact.content_key, ModelVersion.id).join(
            ModelVersion, ModelVersion.artifact_id == Artifact.id
        )
        for content_key, version_id in session.execute(statement.where(Artifact.content_key.in_(some))):
            found[content_key].add(version_id)
    return found


def _by_alias(session: Session, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for kind in {kind for kind, _ in names}:
        for some in _chunks(sorted({alias for one, alias in names if one == kind})):
            statement = select(VersionAlias.alias, VersionAlias.version_id).where(
                VersionAlias.kind == kind, VersionAlias.alias.in_(some)
            )
            for alias, version_id in session.execute(statement):
                found[kind, alias].add(version_id)
    return found


def _read(session: Session, ids: set[int], rules: ObjectUrlRules) -> dict[int, KnownLora]:
    """Version id → the version, or the one that it was merged into."""
    places: dict[int, int] = {one: one for one in ids}
    for some in _chunks(sorted(ids)):
        redirects = select(VersionRedirect.old_version_id, VersionRedirect.version_id)
        rows = session.execute(redirects.where(VersionRedirect.old_version_id.in_(some)))
        places.update((old, new) for old, new in rows)
    versions: dict[int, KnownLora] = {}
    for some in _chunks(sorted(set(places.values()))):
        for version in read_these_versions(session, some, rules):
            versions[version.id] = _known_lora(version)
    return {old: versions[new] for old, new in places.items() if new in versions}


def _known_lora(version: KnownVersion) -> KnownLora:
    return KnownLora(version.id, f"{version.name} of {version.model_key}", version.ids)


def _carried(found: FoundLora, runs: Mapping[tuple[str, str], TrainingRun]) -> list[TrainingRun]:
    """The runs whose token or job the object carries."""
    return list({run.id: run for mark in _marks(found) if (run := runs.get(mark)) is not None}.values())


def _job_name(run: TrainingRun) -> tuple[str, str]:
    return "training_id", f"{run.provider}:{run.training_id}"


def _is_unresolved(run: TrainingRun) -> bool:
    """False for one that led to a version which was merged into another: that one has its job's name."""
    return run.state != TrainingState.FINALISED


def _known_run(run: TrainingRun) -> KnownRun:
    return KnownRun(run.id, run.state, TrainingState(run.state) in TERMINAL)


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
