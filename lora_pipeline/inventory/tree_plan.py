"""A plan for the duplicates of a tree of files: what would become one, what stays, and what was left alone.

Records and pure rules. A plan says for each file which entries go, which one stays, and where each of its fields
comes from; carrying it out is a matter of text and needs no further decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.inventory.entries import MERGED_IDS, Addresses, Entry, strong_ids, was_renamed
from lora_pipeline.inventory.json_text import (
    JsonRefused,
    Member,
    elements,
    list_text,
    members,
    parse_strictly,
    value_of,
    with_elements,
    with_members,
)
from lora_pipeline.inventory.legacy_file import VERSIONS, LegacyFile
from lora_pipeline.inventory.legacy_tree import FileRefused, Skipped
from lora_pipeline.inventory.survivors import (
    PARAMETER,
    FieldChoice,
    Survivor,
    choose_survivor,
    merged_entry,
)
from lora_pipeline.inventory.unifying import StrongIds, unify

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class MergeGroup:
    """Entries of one file that are one LoRA. All numbers are positions in the file's list, from 0."""

    survivor_id: str
    base: int
    """The entry that stays in its place; the others go."""
    members: tuple[int, ...]
    ids: tuple[str, ...]
    fields: tuple[FieldChoice, ...]
    merged_ids: tuple[str, ...]
    values: tuple[str, ...]
    """For each field that does not come from the base: its value as it may be shown; else empty."""


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What would be done to one file."""

    path: str
    sha256: str
    """Of the file that the plan was made from."""
    entries: int
    groups: tuple[MergeGroup, ...]

    @property
    def removed(self) -> int:
        return sum(len(group.members) - 1 for group in self.groups)


@dataclass(frozen=True, slots=True)
class Review:
    """Entries that only a person can decide over."""

    paths: tuple[str, ...]
    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class TreePlan:
    """Everything that was found under one base folder."""

    base: str
    files_read: int = 0
    entries_read: int = 0
    files: tuple[FilePlan, ...] = ()
    reviews: tuple[Review, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    id: str = ""
    made_at: str = ""

    @property
    def removed(self) -> int:
        return sum(file.removed for file in self.files)

    @property
    def groups(self) -> int:
        return sum(len(file.groups) for file in self.files)


@dataclass(slots=True)
class AcrossFiles:
    """Where each strong id was first seen: the same one in another file is for a person to decide."""

    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    reviews: dict[tuple[str, ...], Review] = field(default_factory=dict)

    def add(self, path: str, entry_id: str, known: StrongIds) -> None:
        # Texts, not records: the collector would look at each of them again and again.
        names = [f"{job.provider} {job.base}" for job in known.jobs]
        names += ["\n".join((ref.namespace, ref.bucket, ref.key)) for ref, _ in known.places]
        for key in names:
            first_path, first_id = self.seen.setdefault(key, (path, entry_id))
            if first_path != path:
                both = (first_path, path, first_id, entry_id)
                reason = "the same LoRA in two files: whose it is, a person decides"
                self.reviews[both] = Review((first_path, path), (first_id, entry_id), reason)


def plan_file(file: LegacyFile, addresses: Addresses, across: AcrossFiles) -> tuple[FilePlan, list[Review]]:
    """What would be done to one file whose entries all have ids. Changes nothing."""
    entries: list[Entry] = file.entries
    known = [strong_ids(entry, addresses.place(entry)) for entry in entries]
    for entry, ids in zip(entries, known, strict=True):
        across.add(file.path, entry["id"], ids)
    unified = unify(known)
    if not unified.groups and not unified.doubts:
        return FilePlan(file.path, file.sha256, len(entries), ()), []
    groups = tuple(_group(entries, positions, addresses.rules) for positions in unified.groups)
    reviews = [
        Review((file.path,), tuple(entries[index]["id"] for index in doubt.members), doubt.reason)
        for doubt in unified.doubts
    ]
    return FilePlan(file.path, file.sha256, len(entries), groups), reviews


def _group(entries: Sequence[Entry], positions: tuple[int, ...], rules: ObjectUrlRules) -> MergeGroup:
    renamed = [index for index in positions if was_renamed(entries[index].get("loraUrl"), rules)]
    survivor = choose_survivor(entries, positions, renamed)
    return MergeGroup(
        survivor_id=entries[survivor.id_source]["id"],
        base=survivor.base,
        members=positions,
        ids=tuple([entries[index]["id"] for index in positions]),
        fields=survivor.fields,
        merged_ids=survivor.merged_ids,
        values=tuple(
            [
                ""
                if choice.source == survivor.base
                else shown_value(_value(entries[choice.source], choice.field))
                for choice in survivor.fields
            ]
        ),
    )


def _value(entry: Entry, name: str) -> Any:
    inner = name.removeprefix(PARAMETER)
    return entry["parameters"][inner] if inner != name else entry[name]


def shown_value(value: Any) -> str:
    """A value as a plan may show it: short, and without what a presigned address gives away."""
    if isinstance(value, dict):
        return f"{len(value)} values"
    text = without_secrets(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def merged_entries(entries: Sequence[Entry], plan: FilePlan) -> list[Entry]:
    """The entries as they are once the plan is carried out, in their order."""
    left = dict(enumerate(entries))
    for group in plan.groups:
        survivor = Survivor(group.base, group.base, group.fields, group.merged_ids)
        left[group.base] = merged_entry(entries, survivor)
        for index in group.members:
            if index != group.base:
                del left[index]
    return list(left.values())


def render(file: LegacyFile, plan: FilePlan) -> str:
    """The file's text with the plan carried out, every other character as it was.

    Raises FileRefused where the result would not say exactly what the plan says.
    """
    text = file.text
    top = value_of(text, len(text) - len(text.lstrip()), VERSIONS)
    spans = elements(text, top)
    kept = {index: text[begin:end] for index, (begin, end) in enumerate(spans)}
    for group in plan.groups:
        kept[group.base] = _merged_text(text, spans, group)
        for index in group.members:
            if index != group.base:
                del kept[index]
    array, end = with_elements(text, top, spans, kept)
    result = text[:top] + array + text[end:]
    _check(result, {**file.wrapper, VERSIONS: merged_entries(file.entries, plan)})
    return result


def _merged_text(text: str, spans: Sequence[tuple[int, int]], group: MergeGroup) -> str:
    sources = {group.base, *(choice.source for choice in group.fields)}
    of = {index: _members_by_key(text, spans[index][0]) for index in sources}
    own = list(of[group.base].values())
    texts: dict[str, str] = {}
    parameters: dict[str, str] = {}
    parameters_at = 0
    for choice in group.fields:
        name = choice.field.removeprefix(PARAMETER)
        if name != choice.field:
            inner = _members_by_key(text, of[choice.source]["parameters"].value_start)[name]
            parameters[name] = text[inner.value_start : inner.end]
            continue
        member = of[choice.source][name]
        if name == "parameters":
            parameters_at = member.value_start
        if choice.source != group.base:
            texts[name] = text[member.value_start : member.end]
    if parameters:
        texts["parameters"] = with_members(text, parameters_at, parameters)
    start = spans[group.base][0]
    if group.merged_ids:
        texts[MERGED_IDS] = list_text(group.merged_ids, text, start, own)
    return with_members(text, start, texts, own)


def _members_by_key(text: str, start: int) -> dict[str, Member]:
    return {member.key: member for member in members(text, start)}


def _check(result: str, expected: dict[str, Any]) -> None:
    """The edited text says what the plan says: the last look before a file that is not ours is replaced."""
    try:
        same = parse_strictly(result) == expected
    except JsonRefused:
        same = False
    if not same:
        raise FileRefused("the merged text would not say what the plan says; report this file's layout")
