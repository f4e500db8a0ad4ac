"""A lineage as an outline to be read from top to bottom: from each start what is above it, and what below.

What can be reached in two ways is told once and referred to afterwards; of very many, the newest are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_pipeline.lineage.graph import Edge, Kind, Lineage, Node, Relation

_BESIDE = (Relation.MEMBER, Relation.MERGED_INTO)
MOST = 20
"""Branches of one node that are told."""


@dataclass(frozen=True)
class Branch:
    """A node, how the one above it in the outline leads to it, and what follows."""

    node: Node
    via: Edge | None = None
    branches: Sequence[Branch] = ()
    photographs: Sequence[Edge] = ()
    """The members of an image set, told together."""
    again: bool = False
    """Told above already."""
    untold: int = 0
    """Further branches."""


@dataclass
class _Teller:
    lineage: Lineage
    upwards: bool
    told: set[str] = field(default_factory=set)

    def branch(self, node: Node, via: Edge | None = None) -> Branch:
        if node.id in self.told and self._edges(node):
            return Branch(node, via, again=True)
        self.told.add(node.id)
        edges = self._edges(node)
        photographs = [edge for edge in edges if self.upwards and edge.kind is Relation.MEMBER]
        others = [edge for edge in edges if edge not in photographs]
        newest = others if len(others) <= MOST else others[-MOST:]
        return Branch(
            node,
            via,
            [self.branch(self.lineage.nodes[self._end(edge)], edge) for edge in newest],
            photographs,
            untold=len(others) - len(newest),
        )

    def _edges(self, node: Node) -> Sequence[Edge]:
        if self.upwards:
            return [
                edge for edge in self.lineage.above.get(node.id, ()) if edge.kind is not Relation.MERGED_INTO
            ]
        return self.lineage.below.get(node.id, ())

    def _end(self, edge: Edge) -> str:
        return edge.source if self.upwards else edge.target


def above(lineage: Lineage, start: str) -> Branch:
    """What the start was made from."""
    return _Teller(lineage, upwards=True).branch(lineage.nodes[start])


def below(lineage: Lineage, start: str) -> Branch:
    """What was made of the start."""
    return _Teller(lineage, upwards=False).branch(lineage.nodes[start])


def of_model(lineage: Lineage) -> list[Branch]:
    """Everything that was made for a model, each from where it begins, the newest last."""
    teller = _Teller(lineage, upwards=False)
    begin = [
        node
        for node in lineage.nodes.values()
        if node.kind not in (Kind.IMAGE, Kind.MODEL)
        and not node.facts.get("merged_into")
        and all(edge.kind in _BESIDE for edge in lineage.above.get(node.id, ()))
    ]
    newest = begin if len(begin) <= MOST else begin[-MOST:]
    return [teller.branch(node) for node in newest]
