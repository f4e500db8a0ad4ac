"""Boxes in columns with lines between them: where each goes, so that few lines cross and none runs through a box.

Knows sizes and neighbours only; what a box shows is `picture`'s business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP_X, GAP_Y = 48.0, 16.0
_SWEEPS = 8
_BEND = "bend"


@dataclass(frozen=True)
class Box:
    """Something to be placed."""

    id: str
    column: int
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Where everything went. Heights and widths begin at zero."""

    at: Mapping[str, tuple[float, float]]
    """The upper left corner of each box."""
    lines: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    """For each line the points that it goes through, from the right edge of its source to the left of its target."""
    columns: Sequence[tuple[float, float]]
    """Left edge and width of each column."""
    width: float
    height: float


@dataclass
class _Grid:
    columns: list[list[str]]
    sizes: dict[str, tuple[float, float]]
    left: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    right: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    chains: dict[tuple[str, str], list[str]] = field(default_factory=dict)


def place(boxes: Sequence[Box], lines: Sequence[tuple[str, str]]) -> Layout:
    """Place boxes in their columns, in an order near that of their neighbours, and route the lines.

    A line leads from a lower column to a higher one; one over several columns is bent around the boxes between.
    """
    grid = _grid(boxes, lines)
    _order(grid)
    middles = _middles(grid)
    return _drawn(grid, middles)


def _grid(boxes: Sequence[Box], lines: Sequence[tuple[str, str]]) -> _Grid:
    used = sorted({box.column for box in boxes})
    number = {column: index for index, column in enumerate(used)}
    grid = _Grid([[] for _ in used], {box.id: (box.width, box.height) for box in boxes})
    column_of = {box.id: number[box.column] for box in boxes}
    for box in boxes:
        grid.columns[column_of[box.id]].append(box.id)
    for source, target in lines:
        chain = [source]
        for column in range(column_of[source] + 1, column_of[target]):
            bend = f"{_BEND} {source} {target} {column}"
            grid.columns[column].append(bend)
            grid.sizes[bend] = (0.0, 4.0)
            chain.append(bend)
        chain.append(target)
        grid.chains[source, target] = chain
        for one, other in pairwise(chain):
            grid.right[one].append(other)
            grid.left[other].append(one)
    return grid


def _order(grid: _Grid) -> None:
    """Sweep back and forth, each box to the mean place of its neighbours; keep the order with the fewest crossings."""
    best, fewest = [list(column) for column in grid.columns], _crossings(grid)
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        rows = {box: float(row) for column in grid.columns for row, box in enumerate(column)}
        for column in grid.columns if forwards else reversed(grid.columns):
            neighbours = grid.left if forwards else grid.right
            places = {box: _mean([rows[one] for one in neighbours[box]], rows[box]) for box in column}
            column.sort(key=places.__getitem__)
            rows |= {box: float(row) for row, box in enumerate(column)}
        crossings = _crossings(grid)
        if crossings < fewest:
            best, fewest = [list(column) for column in grid.columns], crossings
    grid.columns = best


def _crossings(grid: _Grid) -> int:
    total = 0
    for column, following in pairwise(grid.columns):
        row = {box: index for index, box in enumerate(following)}
        ends = [sorted(row[one] for one in grid.right[box]) for box in column]
        passed: list[int] = []
        for reached in ends:
            total += sum(1 for end in reached for before in passed if before > end)
            passed += reached
    return total


def _middles(grid: _Grid) -> dict[str, float]:
    """The height of each box's middle: near its neighbours', without overlaps."""
    middles: dict[str, float] = {}
    for column in grid.columns:
        down = 0.0
        for box in column:
            middles[box] = down + grid.sizes[box][1] / 2
            down += grid.sizes[box][1] + GAP_Y
    for sweep in range(_SWEEPS * 2):
        forwards = sweep % 2 == 0
        near, back = (grid.left, grid.right) if forwards else (grid.right, grid.left)
        for column in grid.columns if forwards else reversed(grid.columns):
            wanted = []
            for box in column:
                # What is bound to this box alone pulls the most: so chains come out straight.
                pulls = [(middles[one], len(back[one])) for one in near[box]]
                total = sum(1 / shared for _, shared in pulls)
                wanted.append(sum(m / shared for m, shared in pulls) / total if pulls else middles[box])
            middles |= dict(zip(column, _apart(grid, column, wanted), strict=True))
    return middles


def _apart(grid: _Grid, column: Sequence[str], wanted: Sequence[float]) -> list[float]:
    """The heights nearest to the wanted ones (least squares) at which no two boxes overlap.

    With the least distances taken off, only the order must hold: neighbours out of order share their mean.
    """
    offsets, down = [], 0.0
    for index, box in enumerate(column):
        if index:
            down += (grid.sizes[column[index - 1]][1] + grid.sizes[box][1]) / 2 + GAP_Y
        offsets.append(down)
    blocks: list[tuple[float, int]] = []
    for target, offset in zip(wanted, offsets, strict=True):
        total, count = target - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before, number = blocks.pop()
            total, count = total + before, count + number
        blocks.append((total, count))
    levels = [total / count for total, count in blocks for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]


def _drawn(grid: _Grid, middles: Mapping[str, float]) -> Layout:
    top = min((middles[box] - grid.sizes[box][1] / 2 for box in middles), default=0.0)
    lefts, widths, across = [], [], 0.0
    for column in grid.columns:
        width = max((grid.sizes[box][0] for box in column), default=0.0)
        lefts.append(across)
        widths.append(width)
        across += width + GAP_X
    column_of = {box: index for index, column in enumerate(grid.columns) for box in column}
    at = {box: (lefts[column_of[box]], middles[box] - grid.sizes[box][1] / 2 - top) for box in middles}
    lines = {}
    for ends, chain in grid.chains.items():
        points: list[tuple[float, float]] = []
        for box in chain:
            number, middle = column_of[box], middles[box] - top
            if box != chain[0]:
                points.append((lefts[number], middle))
            if box == chain[0]:
                points.append((lefts[number] + grid.sizes[box][0], middle))
            elif box != chain[-1]:
                points.append((lefts[number] + widths[number], middle))
        lines[ends] = points
    height = max((at[box][1] + grid.sizes[box][1] for box in middles), default=0.0)
    return Layout(
        {box: corner for box, corner in at.items() if not box.startswith(f"{_BEND} ")},
        lines,
        list(zip(lefts, widths, strict=True)),
        max(across - GAP_X, 0.0),
        height,
    )


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
