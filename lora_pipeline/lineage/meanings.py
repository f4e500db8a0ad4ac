"""What an id can mean, and the rule for when it means one thing, several, or none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lora_pipeline.identity.errors import shown
from lora_pipeline.identity.kinds import kind_of

_LISTED = 10
_EXPECTED = (
    "an image's SHA-256, an image set (its number, external id or digest), a ZIP's SHA-256, a training (its number, "
    "token or provider job id), a stored object's address, a hash of weights (SHA-256, content key, AutoV2, AutoV3), "
    "a version (user-50c:V3, owner/name:hash), an old entry's id, a model or a user. Of a hash 12 digits are enough"
)


class LineageNotFound(LookupError):
    """Nothing is known under an id; the message says what it looks like and what was expected."""


class AmbiguousId(LookupError):
    """An id means several things; the message lists what to write instead."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """One thing that an id means."""

    words: str
    """What the id is of it, after "is": `the digest of image set 12`."""
    nodes: tuple[str, ...]
    identity: str
    """Readings of one identity are one meaning, however many nodes they lead to: two sets with one digest."""


def only_meaning(text: str, found: Iterable[Meaning]) -> Meaning | None:
    """The one meaning of `text`, or None where it has none. Raises AmbiguousId."""
    by_identity: dict[str, list[Meaning]] = {}
    for meaning in found:
        by_identity.setdefault(meaning.identity, []).append(meaning)
    meanings = _distinct([_joined(group) for group in by_identity.values()])
    if len(meanings) > 1:
        raise AmbiguousId(_ambiguous(text, meanings))
    return meanings[0] if meanings else None


def not_found(text: str) -> LineageNotFound:
    """The error for an id that means nothing."""
    kind = kind_of(text)
    advice = "See what there is: lora-pipeline versions MODEL, lora-pipeline trainings list"
    if kind.name == "hash_length" and len(text) < 12:
        advice = "Give at least 12 digits of the hash (AutoV2 has 10)"
    return LineageNotFound(
        f"nothing is known under {shown(text)} ({kind.words}). Expected {_EXPECTED}. {advice}"
    )


def _joined(group: Sequence[Meaning]) -> Meaning:
    words: list[str] = []
    nodes: dict[str, None] = {}
    for meaning in group:
        # A photograph that is its own normalised form needs no second word.
        if not nodes.keys() >= set(meaning.nodes) and meaning.words not in words:
            words.append(meaning.words)
        nodes |= dict.fromkeys(meaning.nodes)
    return Meaning(" and ".join(words), tuple(nodes), group[0].identity)


def _distinct(meanings: Sequence[Meaning]) -> list[Meaning]:
    """One of those that lead to the same nodes."""
    return list({frozenset(meaning.nodes): meaning for meaning in reversed(meanings)}.values())[::-1]


def _ambiguous(text: str, meanings: Sequence[Meaning]) -> str:
    candidates = [f"  {meaning.nodes[0]}  ({meaning.words})" for meaning in meanings[:_LISTED]]
    more = [f"  … and {len(meanings) - _LISTED} more"] if len(meanings) > _LISTED else []
    lines = "\n".join([*candidates, *more])
    return f"{shown(text)} means {len(meanings)} things. Write the one that is meant:\n{lines}"
