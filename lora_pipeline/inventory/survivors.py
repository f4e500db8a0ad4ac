"""The one entry that several of a LoRA become, decided field by field, each with its reason.

Order of preference between entries: detailed parameters, then a `completedAt`, then the newest. A field is taken
from the first of them that has it, so that what only the poorer copy knows survives.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from lora_pipeline.identity import job_of
from lora_pipeline.inventory.entries import (
    MERGED_IDS,
    SYNCED,
    Entry,
    is_empty,
    moment,
)

_NEVER = datetime.min.replace(tzinfo=UTC)
_SPECIAL = frozenset({"id", "status", "lastSynced", "description", "loraUrl"})
_STATUS_ORDER = ("completed", "failed")
_Rank = tuple[bool, bool, datetime]

PARAMETER = "parameters."
"""What a field's name starts with where it is one of the parameters."""


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """Where one field of the survivor comes from: the member's position in the group, and why that one."""

    field: str
    """A key of the entry, or `parameters.<key>`."""
    source: int
    """Position of the entry that it comes from."""
    reason: str


# A hundred thousand groups share a few hundred choices.
field_choice = lru_cache(maxsize=10_000)(FieldChoice)


@dataclass(frozen=True, slots=True)
class Survivor:
    """How several entries become one."""

    base: int
    """The member that stays in place; the others go."""
    id_source: int
    fields: tuple[FieldChoice, ...]
    merged_ids: tuple[str, ...]


def choose_survivor(
    entries: Sequence[Entry], members: Sequence[int], renamed: Container[int] = ()
) -> Survivor:
    """Decide over those of the entries that are one LoRA. The same choice whatever order they come in.

    All numbers are positions in `entries`. `renamed` are those whose address is of a prefix that was renamed since.
    """
    ranks = {index: _rank(entries[index]) for index in members}
    if len(set(ranks.values())) < len(ranks):
        # Equal ranks: any order will do that does not depend on where the entries stand.
        contents = {index: json.dumps(entries[index], sort_keys=True) for index in members}
        ranked = sorted(members, key=lambda index: (ranks[index], contents[index]), reverse=True)
    else:
        ranked = sorted(members, key=ranks.__getitem__, reverse=True)
    first = entries[ranked[0]]
    why = _why_first(ranks[ranked[0]], ranks[ranked[1]]) if len(ranked) > 1 else "the only entry"
    choices = [
        _choose(entries, ranked, key, renamed, why)
        if key in _SPECIAL or is_empty(first.get(key))
        else field_choice(key, ranked[0], why)
        for key in _keys(entries, ranked)
    ]
    choices += _missing_parameters(entries, ranked, choices)
    id_source = next(choice.source for choice in choices if choice.field == "id")
    return Survivor(ranked[0], id_source, tuple(choices), _merged_ids(entries, ranked, id_source))


def merged_entry(entries: Sequence[Entry], survivor: Survivor) -> dict[str, Any]:
    """The surviving entry as a value: the base's keys in their order, then what the others add."""
    merged = dict(entries[survivor.base])
    for choice in survivor.fields:
        if not choice.field.startswith(PARAMETER):
            merged[choice.field] = entries[choice.source][choice.field]
    for choice in survivor.fields:
        if choice.field.startswith(PARAMETER):
            key = choice.field.removeprefix(PARAMETER)
            merged["parameters"] = {**merged["parameters"], key: entries[choice.source]["parameters"][key]}
    if survivor.merged_ids:
        merged[MERGED_IDS] = list(survivor.merged_ids)
    return merged


def _rank(entry: Entry) -> _Rank:
    parameters = entry.get("parameters")
    return (
        isinstance(parameters, dict) and bool(parameters),
        not is_empty(entry.get("completedAt")),
        moment(entry.get("timestamp")) or _NEVER,
    )


def _keys(entries: Sequence[Entry], ranked: Sequence[int]) -> list[str]:
    keys: dict[str, None] = {}
    for index in ranked:
        keys |= dict.fromkeys(entries[index])
    keys.pop(MERGED_IDS, None)
    return list(keys)


def _choose(
    entries: Sequence[Entry], ranked: Sequence[int], key: str, renamed: Container[int], why: str
) -> FieldChoice:
    """A field that has rules of its own, or that the first entry does not have."""
    having = [index for index in ranked if not is_empty(entries[index].get(key))]
    if not having:
        return field_choice(key, next(index for index in ranked if key in entries[index]), "empty everywhere")
    special = _special(entries, having, key, renamed)
    if special is not None:
        return special
    if having[0] == ranked[0]:
        return field_choice(key, having[0], why)
    return field_choice(key, having[0], "the richer entry does not have it")


def _special(
    entries: Sequence[Entry], having: Sequence[int], key: str, renamed: Container[int]
) -> FieldChoice | None:
    """The fields that have a reason of their own."""
    if key == "id":
        job = next((index for index in having if job_of(entries[index]["id"]) is not None), None)
        return (
            None if job is None else field_choice(key, job, "the provider's job: webhooks find it by this id")
        )
    if key == "status":
        for status in _STATUS_ORDER:
            for index in having:
                if entries[index]["status"] == status:
                    return field_choice(key, index, f"{status} is the later state")
    if key == "lastSynced":
        latest = max(having, key=lambda index: moment(entries[index][key]) or _NEVER)
        return field_choice(key, latest, "the latest sync")
    if key == "description":
        words = next((index for index in having if entries[index][key] != SYNCED), None)
        return None if words is None else field_choice(key, words, "somebody's own words")
    if key == "loraUrl":
        # The first of the best: max keeps the one it met first.
        best = max(having, key=lambda index: (index not in renamed, not is_signed(entries[index][key])))
        reason = "the address of today, unsigned" if best != having[0] else "the same object"
        return field_choice(key, best, reason)
    return None


def is_signed(url: object) -> bool:
    """Whether an address carries a signature: a secret while it lives, and dead within seven days."""
    # Of whichever provider: each presigned address carries it.
    return isinstance(url, str) and "signature=" in url.lower()


def _missing_parameters(
    entries: Sequence[Entry], ranked: Sequence[int], choices: Sequence[FieldChoice]
) -> list[FieldChoice]:
    """Parameters that the chosen ones lack and another entry knows."""
    chosen = next((choice.source for choice in choices if choice.field == "parameters"), None)
    if chosen is None or not isinstance(entries[chosen]["parameters"], dict):
        return []
    found: dict[str, FieldChoice] = {}
    for index in ranked:
        parameters = entries[index].get("parameters")
        for key in parameters if isinstance(parameters, dict) else ():
            if key not in entries[chosen]["parameters"] and key not in found:
                found[key] = field_choice(
                    f"{PARAMETER}{key}", index, "a parameter that the richer entry does not have"
                )
    return list(found.values())


def _why_first(first: _Rank, second: _Rank) -> str:
    if first[0] != second[0]:
        return "the entry with detailed parameters"
    if first[1] != second[1]:
        return "the entry with a completedAt"
    if first[2] != second[2]:
        return "the newest entry"
    return "equal entries"


def _merged_ids(entries: Sequence[Entry], ranked: Sequence[int], id_source: int) -> tuple[str, ...]:
    ids: dict[str, None] = {}
    for index in ranked:
        ids.update(dict.fromkeys((entries[index]["id"], *entries[index].get(MERGED_IDS, ()))))
    ids.pop(entries[id_source]["id"], None)
    return tuple(ids)
