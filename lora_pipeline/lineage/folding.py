"""How much of a lineage a picture shows: photographs in piles, and of very many versions the ones that matter.

A picture of a thousand boxes tells nothing; what is left out is counted, and the JSON has all of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_pipeline.lineage.graph import Edge, Kind, Lineage, Node

MOST_CHAINS = 10
"""Versions that are drawn, each with everything that leads to it."""
MOST_ENDS = 6
"""Sets and trainings without a version that are drawn beside them."""


@dataclass(frozen=True)
class Pile:
    """Photographs that lie in the same sets, in each in the same way."""

    id: str
    images: Sequence[Node]
    edges: Sequence[Edge]
    """One to each set, from the pile."""


@dataclass(frozen=True)
class Folded:
    """What is drawn."""

    nodes: Sequence[Node]
    """All but photographs."""
    piles: Sequence[Pile]
    edges: Sequence[Edge]
    """Between the nodes."""
    hidden: Mapping[Kind, int]
    """How many are not drawn."""


def fold(lineage: Lineage, starts: Iterable[str]) -> Folded:
    """The lineage as a picture shows it. The starts are always drawn, a start never inside a pile."""
    wanted = set(starts)
    shown = lineage.only(_chosen(lineage, wanted))
    hidden = Counter(node.kind for key, node in lineage.nodes.items() if key not in shown.nodes)
    return Folded(
        # A model's things beside each other: then its lines hardly cross another's.
        sorted(
            (node for node in shown.nodes.values() if node.kind is not Kind.IMAGE),
            key=lambda node: str(node.facts.get("model", "")),
        ),
        _piles(shown, wanted),
        [edge for edge in shown.edges if shown.nodes[edge.source].kind is not Kind.IMAGE],
        dict(hidden),
    )


def _chosen(lineage: Lineage, starts: set[str]) -> set[str]:
    """The starts, the versions that matter most, a few dead ends, and what connects them."""
    versions = lineage.versions
    chosen = set(starts)
    for node in versions[:MOST_CHAINS]:
        chosen |= lineage.made_from([node.id]) | lineage.made_of([node.id])
    led = lineage.made_from(node.id for node in versions)
    ends = [
        node.id
        for node in lineage.nodes.values()
        if node.kind in (Kind.SET, Kind.RUN)
        and node.id not in led
        and not any(
            lineage.nodes[edge.target].kind is not Kind.ZIP for edge in lineage.below.get(node.id, ())
        )
    ]
    for end in ends[-MOST_ENDS:]:
        chosen |= lineage.made_from([end])
    return chosen | _fellows(lineage, chosen)


def _fellows(lineage: Lineage, chosen: set[str]) -> set[str]:
    """Photographs left out of a set that is drawn, and what hangs on nothing else."""
    return {edge.source for edge in lineage.edges if edge.target in chosen and not edge.carries} | {
        edge.target
        for edge in lineage.edges
        if edge.source in chosen and lineage.nodes[edge.target].kind in (Kind.ARTIFACT, Kind.OBJECT)
    }


def _piles(lineage: Lineage, starts: set[str]) -> list[Pile]:
    alike: defaultdict[object, list[Node]] = defaultdict(list)
    for node in lineage.of_kind(Kind.IMAGE):
        places = frozenset((edge.target, edge.carries) for edge in lineage.below.get(node.id, ()))
        alike[(node.id if node.id in starts else None, places)].append(node)
    return [
        Pile(
            nodes[0].id,
            nodes,
            [
                Edge(nodes[0].id, edge.target, edge.kind, edge.facts)
                for edge in lineage.below.get(nodes[0].id, ())
            ],
        )
        for nodes in alike.values()
    ]
