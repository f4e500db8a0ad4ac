"""Shapes, and the two ways of putting them into a file: as SVG, and as a PNG of twice the size.

Both are drawn with what is at hand: SVG is text, and Pillow has a font of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

Point = tuple[float, float]
Colour = str
"""`#rrggbb`."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_SCALE, _FINER = 2, 2
_DASH = (5.0, 4.0)
# Widths in units of the size, those of a wide font (DejaVu): an SVG is written without knowing its reader's.
_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]/ -"), set("mwMWOQGD@%")


@dataclass(frozen=True)
class Rect:
    at: Point
    size: Point
    fill: Colour
    stroke: Colour | None = None
    line: float = 1.0
    radius: float = 0.0


@dataclass(frozen=True)
class Curve:
    """A line through points, level where it begins and ends and between each two; with a head at its end."""

    points: Sequence[Point]
    stroke: Colour
    line: float = 1.5
    dashed: bool = False


@dataclass(frozen=True)
class Words:
    at: Point
    """Where the baseline begins, or (`right`) ends."""
    text: str
    size: float
    fill: Colour
    bold: bool = False
    right: bool = False


Shape = Rect | Curve | Words


@dataclass(frozen=True)
class Group:
    """Shapes that are one thing; `title` is what a viewer shows when it is pointed at."""

    shapes: Sequence[Shape]
    title: str = ""


@dataclass(frozen=True)
class Scene:
    """A whole picture, on white."""

    width: float
    height: float
    title: str
    groups: Sequence[Group]


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a text will be."""
    units = sum(0.38 if letter in _NARROW else 0.92 if letter in _WIDE else 0.63 for letter in text)
    return units * size * (1.1 if bold else 1.0)


def fitted(text: str, room: float, size: float, *, bold: bool = False, middle: bool = False) -> str:
    """The text, shortened to fit: at its end, or in its middle where both ends tell something."""
    if width_of(text, size, bold=bold) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = kept * 2 // 5 if middle else kept
        tail = text[len(text) - (kept - head) :] if middle else ""
        shorter = f"{text[:head]}…{tail}"
        if width_of(shorter, size, bold=bold) <= room:
            return shorter
    return "…"


def as_svg(scene: Scene) -> str:
    """The scene as an SVG document."""
    width, height = f"{scene.width:.0f}", f"{scene.height:.0f}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family={quoteattr(_FONT)}>'
    )
    body = [part for group in scene.groups for part in _svg_group(group)]
    paper = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(scene.title)}</title>", paper, *body, "</svg>", ""])


def _svg_group(group: Group) -> Iterator[str]:
    shapes = [_svg(shape) for shape in group.shapes]
    if group.title:
        yield f"<g><title>{escape(group.title)}</title>"
        yield from shapes
        yield "</g>"
    else:
        yield from shapes


def _svg(shape: Shape) -> str:
    if isinstance(shape, Rect):
        (x, y), (width, height) = shape.at, shape.size
        stroke = f' stroke="{shape.stroke}" stroke-width="{shape.line:g}"' if shape.stroke else ""
        radius = f' rx="{shape.radius:g}"' if shape.radius else ""
        return (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{radius} '
            f'fill="{shape.fill}"{stroke}/>'
        )
    if isinstance(shape, Curve):
        path = f"M{shape.points[0][0]:.1f},{shape.points[0][1]:.1f}" + "".join(
            f" C{a[0]:.1f},{a[1]:.1f} {b[0]:.1f},{b[1]:.1f} {end[0]:.1f},{end[1]:.1f}"
            for a, b, end in (_handles(one, other) for one, other in pairwise(shape.points))
        )
        dash = f' stroke-dasharray="{_DASH[0]:g} {_DASH[1]:g}"' if shape.dashed else ""
        line = f'<path d="{path}" fill="none" stroke="{shape.stroke}" stroke-width="{shape.line:g}"{dash}/>'
        head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(shape))
        return f'{line}<polygon points="{head}" fill="{shape.stroke}"/>'
    anchor = ' text-anchor="end"' if shape.right else ""
    weight = ' font-weight="600"' if shape.bold else ""
    x, y = shape.at
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{shape.size:g}" fill="{shape.fill}"{weight}{anchor}>'
        f"{escape(shape.text)}</text>"
    )


def _handles(start: Point, end: Point) -> tuple[Point, Point, Point]:
    reach = (end[0] - start[0]) / 2
    return (start[0] + reach, start[1]), (end[0] - reach, end[1]), end


def _head(curve: Curve) -> list[Point]:
    x, y = curve.points[-1]
    return [(x, y), (x - 6, y - 3.2), (x - 6, y + 3.2)]


def as_png(scene: Scene) -> bytes:
    """The scene as a PNG, two pixels a unit; drawn twice as fine again, because Pillow's lines have steps."""
    from PIL import Image, ImageDraw

    scale = _SCALE * _FINER
    canvas = Image.new("RGB", (round(scene.width * scale), round(scene.height * scale)), "#ffffff")
    painter = _Painter(ImageDraw.Draw(canvas), scale)
    for group in scene.groups:
        for shape in group.shapes:
            painter.paint(shape)
    size = (round(scene.width * _SCALE), round(scene.height * _SCALE))
    out = io.BytesIO()
    canvas.resize(size, Image.Resampling.BOX).save(out, "PNG", optimize=True)
    return out.getvalue()


class _Painter:
    def __init__(self, draw: ImageDraw.ImageDraw, scale: int) -> None:
        self.draw, self.scale = draw, scale
        self.fonts: dict[float, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}

    def paint(self, shape: Shape) -> None:
        if isinstance(shape, Rect):
            self._rect(shape)
        elif isinstance(shape, Curve):
            self._curve(shape)
        else:
            self._words(shape)

    def _rect(self, rect: Rect) -> None:
        (x, y), (width, height) = rect.at, rect.size
        box = tuple(value * self.scale for value in (x, y, x + width, y + height))
        line = round(rect.line * self.scale) if rect.stroke else 0
        self.draw.rounded_rectangle(
            (box[0], box[1], box[2], box[3]), rect.radius * self.scale, rect.fill, rect.stroke, line
        )

    def _curve(self, curve: Curve) -> None:
        points = [point for one, other in pairwise(curve.points) for point in _sampled(one, other)]
        thick = round(curve.line * self.scale)
        for piece in _dashes(points) if curve.dashed else [points]:
            scaled = [(x * self.scale, y * self.scale) for x, y in piece]
            self.draw.line(scaled, curve.stroke, thick, joint="curve")
        self.draw.polygon([(x * self.scale, y * self.scale) for x, y in _head(curve)], curve.stroke)

    def _words(self, words: Words) -> None:
        from PIL import ImageFont

        size = words.size * self.scale
        font = self.fonts.setdefault(size, ImageFont.load_default(size=size))
        # The built-in font has one weight: a thin outline makes it bolder.
        outline = max(1, round(size / 64)) if words.bold else 0
        place = (words.at[0] * self.scale, words.at[1] * self.scale)
        anchor = "rs" if words.right else "ls"
        self.draw.text(
            place,
            words.text,
            words.fill,
            font=font,
            anchor=anchor,
            stroke_width=outline,
            stroke_fill=words.fill,
        )


def _sampled(start: Point, end: Point, pieces: int = 32) -> list[Point]:
    a, b, _ = _handles(start, end)
    found = []
    for step in range(pieces + 1):
        t = step / pieces
        u = 1 - t
        weights = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
        corners = (start, a, b, end)
        found.append(
            (
                sum(weight * corner[0] for weight, corner in zip(weights, corners, strict=True)),
                sum(weight * corner[1] for weight, corner in zip(weights, corners, strict=True)),
            )
        )
    return found


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Pieces of a line, each a dash long, with gaps between them."""
    piece, gone, drawing = [points[0]], 0.0, True
    for one, other in pairwise(points):
        long = ((other[0] - one[0]) ** 2 + (other[1] - one[1]) ** 2) ** 0.5
        done = 0.0
        while gone + long - done >= _DASH[0 if drawing else 1]:
            done += _DASH[0 if drawing else 1] - gone
            part = done / long
            cut = (one[0] + (other[0] - one[0]) * part, one[1] + (other[1] - one[1]) * part)
            if drawing:
                yield [*piece, cut]
            piece, gone, drawing = [cut], 0.0, not drawing
        gone += long - done
        piece.append(other)
    if drawing and len(piece) > 1:
        yield piece
