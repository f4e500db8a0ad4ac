"""A lineage as a picture: photographs on the left, what became of them to the right, what is live in green.

It shows no photograph: a picture of a person is served by the API and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_pipeline.lineage.drawing import (
    Colour,
    Curve,
    Group,
    Rect,
    Scene,
    Shape,
    Words,
    as_png,
    as_svg,
    fitted,
    width_of,
)
from lora_pipeline.lineage.folding import Folded, Pile, fold
from lora_pipeline.lineage.graph import Edge, Kind, Node, Relation
from lora_pipeline.lineage.layout import Box, Layout, place
from lora_pipeline.lineage.tracing import Trace
from lora_pipeline.lineage.wording import SIMULATED, about, counted, details, membership

_MARGIN, _HEADER, _FOOTER = 28.0, 62.0, 30.0
_PAD, _LINE_HEIGHT, _DOT = 12.0, 16.0, 9.0
_TITLE, _TEXT, _CAPTION = 13.5, 11.0, 8.5
_INK, _SOFT, _FAINT = "#1d2433", "#5b6475", "#8a93a5"
_BORDER, _PAPER, _WIRE = "#d6dbe4", "#ffffff", "#b4bccb"
_LIVE, _LIVE_PAPER = "#168a4a", "#f0faf4"
_START, _START_PAPER = "#2f6fed", "#f2f6ff"
_DOTS_A_ROW, _MOST_DOTS = 14, 56
_COLOURS: dict[Kind, Colour] = {
    Kind.IMAGE: "#0f8fa8",
    Kind.SET: "#2f6fed",
    Kind.ZIP: "#8a5cd6",
    Kind.RUN: "#d08a12",
    Kind.VERSION: "#168a4a",
    Kind.ARTIFACT: "#5b6475",
    Kind.OBJECT: "#8a93a5",
    Kind.MODEL: "#168a4a",
}
_COLUMNS = {
    Kind.IMAGE: 0,
    Kind.SET: 1,
    Kind.ZIP: 2,
    Kind.RUN: 3,
    Kind.VERSION: 4,
    Kind.ARTIFACT: 5,
    Kind.MODEL: 5,
    Kind.OBJECT: 6,
}
_WIDTHS = {Kind.IMAGE: 168.0, Kind.SET: 172.0, Kind.ZIP: 142.0, Kind.RUN: 212.0, Kind.VERSION: 214.0}
_WIDTH, _WIDE = 180.0, 250.0
_CAPTIONS = {
    Kind.IMAGE: "PHOTOGRAPH",
    Kind.SET: "IMAGE SET",
    Kind.ZIP: "TRAINING ZIP",
    Kind.RUN: "TRAINING",
    Kind.VERSION: "VERSION",
    Kind.ARTIFACT: "WEIGHTS",
    Kind.OBJECT: "STORED OBJECT",
    Kind.MODEL: "SERVED BY MODEL",
}


@dataclass(frozen=True)
class _Card:
    """One box with what it says."""

    id: str
    kind: Kind
    column: int
    caption: str
    title: str
    lines: Sequence[str]
    tooltip: str
    live: bool = False
    start: bool = False
    dots: int = 0

    @property
    def width(self) -> float:
        return _WIDE if self.kind is Kind.OBJECT else _WIDTHS.get(self.kind, _WIDTH)

    @property
    def height(self) -> float:
        rows = -(-min(self.dots, _MOST_DOTS) // _DOTS_A_ROW)
        return _PAD * 2 + 25 + len(self.lines) * _LINE_HEIGHT + (rows * (_DOT + 2) + 4 if rows else 0)


def lineage_svg(found: Trace) -> str:
    """The graph as an SVG document."""
    return as_svg(_scene(found))


def lineage_png(found: Trace) -> bytes:
    """The graph as a PNG."""
    return as_png(_scene(found))


def _scene(found: Trace) -> Scene:
    folded = fold(found.lineage, found.starts)
    cards = [
        *(_pile_card(pile, found) for pile in folded.piles),
        *(_card(node, folded, found) for node in folded.nodes),
    ]
    edges = [*(edge for pile in folded.piles for edge in pile.edges), *folded.edges]
    layout = place(
        [Box(card.id, card.column, card.width, card.height) for card in cards],
        [(edge.source, edge.target) for edge in edges],
    )
    title, subtitle = _titles(found)
    wide = max(width_of(title, 19, bold=True), width_of(subtitle, 12))
    width = max(layout.width, wide) + 2 * _MARGIN
    note = _note(folded)
    height = layout.height + _HEADER + _MARGIN + (_FOOTER if note else 0)
    header = Group(
        [
            Words((_MARGIN, 34), title, 19, _INK, bold=True),
            Words((_MARGIN, 52), subtitle, 12, _SOFT),
        ]
    )
    footer = Group([Words((_MARGIN, height - 16), note, 11, _FAINT)] if note else [])
    wires = Group([_wire(edge, layout) for edge in sorted(edges, key=_importance)])
    boxes = [_drawn(card, layout) for card in cards]
    return Scene(width, height, title, [header, wires, *boxes, footer])


def _titles(found: Trace) -> tuple[str, str]:
    labels = [found.lineage.nodes[start].label for start in found.starts]
    title = f"Lineage of {labels[0]}" + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")
    versions = found.lineage.versions
    live = sum(bool(node.facts["live"]) for node in versions)
    trained = " trained with it" if found.about_photographs else ""
    said = [
        f"{counted(len(versions), Kind.VERSION)}{trained}, {live} live"
        if versions
        else f"no version{trained}"
    ]
    if any(node.facts.get("simulated") for node in versions):
        said.append("SIMULATED: nothing was paid, and these weights generate nothing")
    return title, "   ·   ".join(said)


def _note(folded: Folded) -> str:
    """What is not in the picture, and what a dashed line means."""
    dashed = any(not edge.carries for pile in folded.piles for edge in pile.edges)
    said = ["Dashed: it lies in the set, but nothing was trained on it"] if dashed else []
    if folded.hidden:
        kinds = [counted(folded.hidden[kind], kind) for kind in Kind if folded.hidden.get(kind)]
        said.append(f"Not drawn: {', '.join(kinds)} (the JSON has all)")
    return "   ·   ".join(said)


def _card(node: Node, folded: Folded, found: Trace) -> _Card:
    merged = bool(node.facts.get("merged_into"))
    column = _COLUMNS[Kind.RUN] if merged else _COLUMNS[node.kind]
    if node.kind is Kind.OBJECT and not any(
        edge.target == node.id and edge.kind is Relation.LIES_AT for edge in folded.edges
    ):
        column = _COLUMNS[Kind.ARTIFACT]
    title, lines = _title(node), _lines(node, folded)
    return _Card(
        node.id,
        node.kind,
        column,
        "MERGED VERSION" if merged else _CAPTIONS[node.kind],
        title,
        lines,
        "\n".join([node.label, *details(node)]),
        live=bool(node.facts.get("live")),
        start=node.id in found.starts,
    )


def _title(node: Node) -> str:
    facts = node.facts
    match node.kind:
        case Kind.ZIP:
            return str(facts["sha256"][:12])
        case Kind.ARTIFACT:
            return str(facts["sha256"][:12])
        case Kind.OBJECT:
            return str(facts["address"]).rpartition("/")[2]
        case Kind.MODEL:
            return str(facts["model"])
        case _:
            return node.label


def _lines(node: Node, folded: Folded) -> list[str]:
    said = [one for one in details(node) if one != SIMULATED]
    match node.kind:
        case Kind.OBJECT:
            folder = str(node.facts["address"]).rpartition("/")[0] + "/"
            return [folder, *said, *_gone(node, folded.edges)]
        case Kind.RUN:
            state, job, attempt, *reason = said
            provider, _, number = job.partition(" ")
            return [state, f"{provider}, {attempt}", number, *reason[:1]]
        case Kind.ARTIFACT:
            return [said[0], ", ".join(said[1:])]
        case _:
            return said[:4]


def _gone(node: Node, edges: Sequence[Edge]) -> list[str]:
    lying = [edge for edge in edges if edge.target == node.id and edge.kind is Relation.LIES_AT]
    return [about(edge) for edge in lying if about(edge)][:1]


def _pile_card(pile: Pile, found: Trace) -> _Card:
    first = pile.images[0]
    left_out = [edge for edge in pile.edges if not edge.carries]
    lines = [membership(edge).partition(":")[0] for edge in left_out[:1]]
    if len(pile.images) == 1:
        lines = [*details(first), *lines]
    return _Card(
        pile.id,
        Kind.IMAGE,
        _COLUMNS[Kind.IMAGE],
        _CAPTIONS[Kind.IMAGE] + ("S" if len(pile.images) > 1 else ""),
        str(first.facts["sha256"][:12]) if len(pile.images) == 1 else counted(len(pile.images), Kind.IMAGE),
        lines,
        "\n".join(str(image.facts["sha256"]) for image in pile.images[:40]),
        start=any(image.id in found.starts for image in pile.images),
        dots=len(pile.images) if len(pile.images) > 1 else 0,
    )


def _drawn(card: _Card, layout: Layout) -> Group:
    x, y = layout.at[card.id]
    x, y = x + _MARGIN, y + _HEADER + 8
    paper = _START_PAPER if card.start else _LIVE_PAPER if card.live else _PAPER
    border = _START if card.start else _LIVE if card.live else _BORDER
    shapes: list[Shape] = [
        Rect((x, y), (card.width, card.height), paper, border, 2.0 if card.start else 1.2, 7),
        Rect((x + 7, y + 9), (3, card.height - 18), _COLOURS[card.kind], radius=1.5),
    ]
    left, room = x + _PAD + 6, card.width - 2 * _PAD - 4
    shapes.append(Words((left, y + _PAD + 6), card.caption, _CAPTION, _FAINT, bold=True))
    if card.live:
        shapes += _pill("LIVE", x + card.width - 10, y + 8)
    title = fitted(card.title, room, _TITLE, bold=True, middle=card.kind is Kind.OBJECT)
    shapes.append(Words((left, y + _PAD + 22), title, _TITLE, _INK, bold=True))
    below = y + _PAD + 25
    if card.dots:
        below += 4
        for number in range(min(card.dots, _MOST_DOTS)):
            row, place = divmod(number, _DOTS_A_ROW)
            corner = (left + place * (_DOT + 1), below + 2 + row * (_DOT + 2))
            shapes.append(
                Rect(corner, (_DOT - 1, _DOT - 1), "#9fd3dd" if not card.lines else "#e3e7ee", radius=2)
            )
        below += -(-min(card.dots, _MOST_DOTS) // _DOTS_A_ROW) * (_DOT + 2)
    for line in card.lines:
        below += _LINE_HEIGHT
        text = fitted(line, room, _TEXT, middle=card.kind is Kind.OBJECT or ":" in line)
        shapes.append(Words((left, below), text, _TEXT, _SOFT))
    return Group(shapes, card.tooltip)


def _pill(text: str, right: float, top: float) -> list[Shape]:
    width = width_of(text, 8.5, bold=True) + 12
    return [
        Rect((right - width, top), (width, 14), _LIVE, radius=7),
        Words((right - width + 6, top + 10), text, 8.5, "#ffffff", bold=True),
    ]


def _wire(edge: Edge, layout: Layout) -> Curve:
    points = [(x + _MARGIN, y + _HEADER + 8) for x, y in layout.lines[edge.source, edge.target]]
    live = bool(edge.facts.get("live"))
    return Curve(points, _LIVE if live else _WIRE, 2.0 if live else 1.4, dashed=_is_dashed(edge))


def _is_dashed(edge: Edge) -> bool:
    return not edge.carries or edge.kind is Relation.MERGED_INTO


def _importance(edge: Edge) -> bool:
    return bool(edge.facts.get("live"))
