"""Everything that was read, as one graph."""

from __future__ import annotations

from lora_pipeline.lineage.edges import edges_of
from lora_pipeline.lineage.graph import Lineage
from lora_pipeline.lineage.nodes import nodes_of
from lora_pipeline.lineage.rows import Rows, Scope
from lora_pipeline.lineage.weights import places_of


def build(rows: Rows, scope: Scope) -> Lineage:
    """The graph of the rows. An edge whose other end was not read is left out."""
    places = places_of(rows, scope)
    nodes = {node.id: node for node in nodes_of(rows, places)}
    edges = edges_of(rows, places)
    return Lineage(nodes, [edge for edge in edges if edge.source in nodes and edge.target in nodes])
