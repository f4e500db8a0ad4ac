"""Which records mean one LoRA: the rule, over the strong ids that each record has.

The same provider job, the same content, or the same stored object unify. Names, sizes and ETags prove nothing and
are not even asked for. Where strong ids contradict each other, a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import NamedTuple

from lora_pipeline.identity import JobId, ObjectRef


class Place(NamedTuple):
    """A stored object, with its version where the address told it."""

    ref: ObjectRef
    object_version: str | None = None


@dataclass(frozen=True, slots=True)
class StrongIds:
    """What a record is known by. Empty sets where nothing is known: such a record unifies with none."""

    jobs: frozenset[JobId] = frozenset()
    content_keys: frozenset[str] = frozenset()
    places: frozenset[Place] = frozenset()
    provider_versions: frozenset[str] = frozenset()
    outcome: str | None = None
    """`completed` or `failed` where the record says so: a failed one never becomes completed by merging."""
    verdict: object = None
    """A reviewer's verdict (`isGood`), in whatever form the record has it; None where nobody gave one."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Records that share a strong id and contradict each other in another one."""

    members: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Unified:
    """Indices of the records, each group in ascending order."""

    groups: tuple[tuple[int, ...], ...] = ()
    doubts: tuple[Doubt, ...] = field(default=())


def unify(records: Sequence[StrongIds]) -> Unified:
    """The groups of records that are one LoRA, and the doubtful ones. A record is in at most one group."""
    groups: list[tuple[int, ...]] = []
    doubts: list[Doubt] = []
    for component in _components(records, links_of):
        reason = contradiction([records[index] for index in component])
        if reason is None:
            groups.append(component)
            continue
        doubts.append(Doubt(component, reason))
        # What shares its job or its content is one LoRA whatever else lies in the same place.
        within = [records[index] for index in component]
        groups += [
            tuple(component[index] for index in sure)
            for sure in _components(within, _sure_links)
            if contradiction([within[index] for index in sure]) is None
        ]
    return Unified(tuple(sorted(groups)), tuple(sorted(doubts, key=lambda doubt: doubt.members)))


def contradiction(records: Sequence[StrongIds]) -> str | None:
    """Why these records cannot be merged without a person, or None."""
    outcomes = {record.outcome for record in records if record.outcome}
    if len(outcomes) > 1:
        return "one says completed, another failed"
    verdicts = [record.verdict for record in records if record.verdict is not None]
    if any(verdict != verdicts[0] for verdict in verdicts):
        return "reviewers disagree (isGood)"
    provider_versions = {version for record in records for version in record.provider_versions}
    if len(provider_versions) > 1:
        return f"{len(provider_versions)} different provider versions"
    contents = {content for record in records for content in record.content_keys}
    if len(contents) > 1:
        return f"{len(contents)} different contents"
    return _different_jobs(records) or _different_objects(records) or _different_object_versions(records)


def _different_jobs(records: Sequence[StrongIds]) -> str | None:
    # Thousands of records may have one job: only what differs is held against each other.
    different = {(record.jobs, bool(record.content_keys)) for record in records if record.jobs}
    for (one, one_known), (other, other_known) in combinations(different, 2):
        if one_known and other_known:
            continue
        shared = {(job.provider, job.base) for job in one} & {(job.provider, job.base) for job in other}
        if not shared:
            return "different provider jobs"
        for _, base in shared:
            if len(_suffixed(one, base) | _suffixed(other, base)) > 1:
                return "one provider job under different suffixes"
    return None


def _suffixed(jobs: frozenset[JobId], base: str) -> set[str]:
    return {job.text.lower() for job in jobs if job.base == base} - {base}


def _different_objects(records: Sequence[StrongIds]) -> str | None:
    """Held together by a job alone while their objects differ: checkpoints of one job are LoRAs of their own."""
    if len({place.ref for record in records for place in record.places}) < 2:
        return None
    known = [record for record in records if record.places or record.content_keys]
    groups = list(_components(known, _content_links))
    if len(groups) == 1 and len(groups[0]) == len(known):
        return None
    return "one job, different objects (name a renamed prefix with --rename; checkpoints stay apart)"


def _different_object_versions(records: Sequence[StrongIds]) -> str | None:
    versions: dict[ObjectRef, set[str]] = {}
    for record in records:
        for place in record.places:
            if place.object_version is not None and not record.content_keys:
                versions.setdefault(place.ref, set()).add(place.object_version)
    if any(len(found) > 1 for found in versions.values()):
        return "different object versions of one key"
    return None


def _content_links(record: StrongIds) -> Iterator[Hashable]:
    yield from record.content_keys
    for place in record.places:
        yield place.ref


def _sure_links(record: StrongIds) -> Iterator[Hashable]:
    for job in record.jobs:
        yield job.provider, job.base
    yield from record.content_keys


def links_of(record: StrongIds) -> Iterator[Hashable]:
    """Everything that a record may share with another of the same LoRA."""
    yield from _sure_links(record)
    for place in record.places:
        yield place.ref


def _components(
    records: Sequence[StrongIds], links: Callable[[StrongIds], Iterator[Hashable]]
) -> Iterator[tuple[int, ...]]:
    """Groups of two and more records that hang together by links; a loop, not recursion: chains can be long."""
    by_link: dict[Hashable, list[int]] = {}
    for index, record in enumerate(records):
        for link in links(record):
            by_link.setdefault(link, []).append(index)
    parent = list(range(len(records)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    shared = False
    for linked in by_link.values():
        for one, other in pairwise(linked):
            parent[max(root(one), root(other))] = min(root(one), root(other))
            shared = True
    if not shared:
        return
    found: dict[int, list[int]] = {}
    for index in range(len(records)):
        found.setdefault(root(index), []).append(index)
    yield from (tuple(group) for group in found.values() if len(group) > 1)
