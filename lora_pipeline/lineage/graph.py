"""Lineage as a graph: what was made from what, as plain records, and the rules for walking it.

How the records come out of the database is `reading`'s business, how they are shown the faces'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any


class Kind(StrEnum):
    """What a node is, in the order in which the pipeline makes them."""

    IMAGE = "image"
    """A photograph by its SHA-256, whoever uploaded it."""
    SET = "set"
    ZIP = "zip"
    """The training ZIP of one image set, by its SHA-256."""
    RUN = "run"
    VERSION = "version"
    ARTIFACT = "artifact"
    """A LoRA by its content."""
    OBJECT = "object"
    """A stored object that holds, held, or is said to hold an artifact."""
    MODEL = "model"


class Relation(StrEnum):
    """What an edge says: its target came about through its source in this way."""

    MEMBER = "member"
    PACKED = "packed"
    TRAINED_ON = "trained_on"
    REGISTERED = "registered"
    MERGED_INTO = "merged_into"
    WEIGHTS = "weights"
    LIES_AT = "lies_at"
    SERVED = "served"


@dataclass(frozen=True, slots=True)
class Node:
    """One thing. `id` is stable and is itself an id that lineage can be asked for."""

    id: str
    kind: Kind
    label: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON without anything personal and without signed addresses."""


@dataclass(frozen=True, slots=True)
class Edge:
    """From what was there before (`source`) to what was made of it (`target`)."""

    source: str
    target: str
    kind: Relation
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def carries(self) -> bool:
        """Whether the source went into what was made of the target.

        A photograph that was left out lies in its set, but no version was trained on it: nobody who walks on from
        the set may come upon it, and nobody who walks on from it upon what the set was made into.
        """
        return self.kind is not Relation.MEMBER or bool(self.facts["included"])


@dataclass(frozen=True)
class Lineage:
    """Nodes by their id, and edges between them."""

    nodes: Mapping[str, Node]
    edges: Sequence[Edge]

    @cached_property
    def below(self) -> Mapping[str, Sequence[Edge]]:
        """The edges that leave each node."""
        return _by(self.edges, lambda edge: edge.source)

    @cached_property
    def above(self) -> Mapping[str, Sequence[Edge]]:
        """The edges that lead to each node."""
        return _by(self.edges, lambda edge: edge.target)

    def made_of(self, starts: Iterable[str]) -> set[str]:
        """The starts and all that was made of them."""
        return _walk(starts, self.below, lambda edge: edge.target)

    def made_from(self, starts: Iterable[str]) -> set[str]:
        """The starts and all that they were made from."""
        return _walk(starts, self.above, lambda edge: edge.source)

    def seen_from(self, starts: Iterable[str], *, up: bool = True, down: bool = True) -> Lineage:
        """What is above and below the starts; with each version those that were merged into it."""
        present = [start for start in starts if start in self.nodes]
        seen = set(present)
        if up:
            seen |= self.made_from(present)
        if down:
            seen |= self.made_of(present)
        seen |= {
            edge.source for edge in self.edges if edge.kind is Relation.MERGED_INTO and edge.target in seen
        }
        return self.only(seen)

    def survivor(self, node: str) -> str:
        """The version that a merged one lives on in, in one hop; any other node itself."""
        edges = self.below.get(node, ())
        return next((edge.target for edge in edges if edge.kind is Relation.MERGED_INTO), node)

    def only(self, ids: set[str]) -> Lineage:
        """These nodes and the edges between them."""
        return Lineage(
            {key: node for key, node in self.nodes.items() if key in ids},
            [edge for edge in self.edges if edge.source in ids and edge.target in ids],
        )

    def of_kind(self, kind: Kind) -> list[Node]:
        """The nodes of one kind, in their order."""
        return [node for node in self.nodes.values() if node.kind is kind]

    @property
    def versions(self) -> list[Node]:
        """The versions that stand for themselves, live ones first, then the newest."""
        found = [node for node in self.of_kind(Kind.VERSION) if node.facts["merged_into"] is None]
        newest = sorted(found, key=lambda node: int(node.facts["version_id"]), reverse=True)
        return sorted(newest, key=lambda node: not node.facts["live"])


def _by(edges: Iterable[Edge], end: Callable[[Edge], str]) -> Mapping[str, Sequence[Edge]]:
    found: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        found[end(edge)].append(edge)
    return dict(found)


def _walk(starts: Iterable[str], edges: Mapping[str, Sequence[Edge]], end: Callable[[Edge], str]) -> set[str]:
    """All that edges lead to. Those that carry nothing are followed from a start only, and not beyond."""
    first = list(starts)
    seen = set(first)
    for start in first:
        seen |= {end(edge) for edge in edges.get(start, ()) if not edge.carries}
    waiting = list(first)
    walked = set(first)
    while waiting:
        for edge in edges.get(waiting.pop(), ()):
            if edge.carries and end(edge) not in walked:
                walked.add(end(edge))
                waiting.append(end(edge))
    return seen | walked
