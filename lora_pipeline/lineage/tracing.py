"""The operation: from any id to what it was made from, what was made of it, and where that was live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.inventory.renames import configured_rules
from lora_pipeline.lineage.finding import find, nothing_known
from lora_pipeline.lineage.graph import Edge, Kind, Lineage, Node, Relation
from lora_pipeline.lineage.reading import read_lineage
from lora_pipeline.lineage.rows import Scope

_OF_A_VERSION = (
    "version_id",
    "model",
    "version",
    "live",
    "live_since",
    "pinned",
    "weights",
    "weights_at",
    "provider_version",
    "simulated",
    "trained_at",
    "merged",
)


@dataclass(frozen=True)
class Trace:
    """The answer to one id."""

    asked: str
    """As it may be shown: without what makes an address a key."""
    meaning: str
    """What it is: `the SHA-256 of a photograph`."""
    starts: tuple[str, ...]
    """The nodes that it means."""
    lineage: Lineage

    @property
    def left_out(self) -> list[Edge]:
        """The sets that the photographs asked for lie in without having been trained on."""
        return [
            edge
            for edge in self.lineage.edges
            if edge.kind is Relation.MEMBER and not edge.carries and edge.source in self.starts
        ]

    @property
    def about_photographs(self) -> bool:
        """Whether photographs were asked for: then every version here was trained with one of them."""
        return all(self.lineage.nodes[start].kind is Kind.IMAGE for start in self.starts)

    def as_json(self) -> dict[str, Any]:
        """The whole answer for a program: plain JSON."""
        return {
            "id": self.asked,
            "meaning": self.meaning,
            "starts": list(self.starts),
            "versions": [_version(node) for node in self.lineage.versions],
            "left_out_of": [
                {"image_set": edge.target, "image": edge.source, "reasons": edge.facts["reasons"]}
                for edge in self.left_out
            ],
            "nodes": [
                {"id": node.id, "kind": node.kind.value, "label": node.label, "facts": dict(node.facts)}
                for node in self.lineage.nodes.values()
            ],
            "edges": [
                {
                    "source": edge.source,
                    "target": edge.target,
                    "kind": edge.kind.value,
                    "facts": dict(edge.facts),
                }
                for edge in self.lineage.edges
            ],
        }


def scope_of(connections: Connections, user_id: str | None = None) -> Scope:
    """What this user (None: anybody) may see of this installation. Raises IdentityError where its settings make no sense."""

    def key_of(address: str) -> str | None:
        # The store is opened for an address only: everything else is answered without it.
        return connections.store.key_of(address)

    return Scope(user_id, configured_rules(connections.settings), key_of)


def trace(
    database: Database,
    text: str,
    *,
    scope: Scope | None = None,
    up: bool = True,
    down: bool = True,
) -> Trace:
    """The lineage of whatever `text` means: upwards, downwards, or both.

    Raises LineageNotFound and AmbiguousId.
    """
    scope = scope or Scope()
    with database.read() as session:
        meaning = find(session, text, scope)
        lineage = read_lineage(session, meaning.nodes, scope, up=up, down=down)
        starts = tuple(
            dict.fromkeys(lineage.survivor(node) for node in meaning.nodes if node in lineage.nodes)
        )
        if not starts:
            raise nothing_known(session, text.strip(), scope)
    merged = set(starts) - set(meaning.nodes)
    words = f"{meaning.words}, merged into {lineage.nodes[merged.pop()].label}" if merged else meaning.words
    return Trace(without_secrets(text.strip()), words, starts, lineage)


def _version(node: Node) -> dict[str, Any]:
    return {"id": node.id, **{name: node.facts[name] for name in _OF_A_VERSION}}
