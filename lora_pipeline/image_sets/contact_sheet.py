"""The contact sheet: one JPEG that shows a person at a glance what will be trained, and what was left out and why."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDTH = 600
"""Pixels: what a column of Dagster's page shows without scaling."""

COLUMNS = 4
MAX_TILES = 120
"""Further ones are counted, not shown."""

_MARGIN, _GAP, _LABEL, _HEADER = 14, 10, 34, 58
_TILE = (WIDTH - 2 * _MARGIN - (COLUMNS - 1) * _GAP) // COLUMNS
_ROUND, _TITLE_LENGTH = 6, 36
_BACKGROUND, _PANEL = (250, 250, 248), (228, 228, 224)
_INK, _FAINT = (38, 38, 42), (120, 120, 126)
_INCLUDED, _REMARKED, _EXCLUDED = (46, 125, 80), (214, 140, 20), (196, 52, 48)


@dataclass(frozen=True)
class Tile:
    """One file on the sheet. `number` is its place in the ZIP; None: it is left out."""

    picture: Callable[[], bytes] | None
    """Reads its JPEG, one at a time; None where there is no picture."""
    number: int | None
    remark: str = ""
    """A few words under the picture: the reason it is out, or what was said about it."""
    warned: bool = False


def contact_sheet(title: str, subtitle: str, tiles: Sequence[Tile]) -> bytes:
    """The sheet as JPEG, at most WIDTH pixels wide, with the tiles in the order given."""
    from PIL import Image, ImageDraw

    shown = tiles[:MAX_TILES]
    rows = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    heights = [_TILE + _GAP + (_LABEL if any(tile.remark for tile in row) else 0) for row in rows]
    rest = f"and {len(tiles) - len(shown)} more" if len(tiles) > len(shown) else ""
    sheet = Image.new("RGB", (WIDTH, _HEADER + sum(heights) + (_LABEL if rest else _MARGIN)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 10), title[:_TITLE_LENGTH], _INK, font=_font(19))
    draw.text((_MARGIN, 35), subtitle, _FAINT, font=_font(12))
    _legend(draw)
    top = _HEADER
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, draw, tile, _MARGIN + column * (_TILE + _GAP), top)
        top += height
    draw.text((_MARGIN, top), rest, _FAINT, font=_font(12))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=84, optimize=True)
    return buffer.getvalue()


def _legend(draw: ImageDraw) -> None:
    right = WIDTH - _MARGIN
    for words, colour in (("left out", _EXCLUDED), ("in, with a remark", _REMARKED), ("in", _INCLUDED)):
        width = int(draw.textlength(words, font=_font(11)))
        right -= width
        draw.text((right, 16), words, _FAINT, font=_font(11))
        right -= 14
        draw.rounded_rectangle((right, 18, right + 9, 27), 2, fill=colour)
        right -= 12


def _draw_tile(sheet: Image, draw: ImageDraw, tile: Tile, left: int, top: int) -> None:
    excluded = tile.number is None
    colour = _EXCLUDED if excluded else _REMARKED if tile.warned else _INCLUDED
    box = (left, top, left + _TILE - 1, top + _TILE - 1)
    sheet.paste(_panel(tile), (left, top), _rounded_mask())
    draw.rounded_rectangle(box, _ROUND, outline=colour, width=3)
    badge = "out" if tile.number is None else f"{tile.number:03}"
    width = int(draw.textlength(badge, font=_font(12))) + 12
    draw.rounded_rectangle((left, top, left + width, top + 18), _ROUND, fill=colour)
    draw.text((left + 6, top + 9), badge, (255, 255, 255), font=_font(12), anchor="lm")
    for line, words in enumerate(_wrapped(draw, tile.remark)):
        draw.text(
            (left, top + _TILE + 4 + 14 * line), words, _EXCLUDED if excluded else _FAINT, font=_font(11)
        )


def _panel(tile: Tile) -> Image:
    """The picture on its ground; grey and crossed where it is left out."""
    from PIL import Image, ImageDraw

    panel = Image.new("RGB", (_TILE, _TILE), _PANEL)
    draw = ImageDraw.Draw(panel)
    picture = _thumbnail(tile.picture)
    if picture is None:
        draw.text((_TILE // 2, _TILE // 2), "no picture", _FAINT, font=_font(12), anchor="mm")
        return panel
    place = ((_TILE - picture.width) // 2, (_TILE - picture.height) // 2)
    if tile.number is not None:
        panel.paste(picture, place)
        return panel
    grey = picture.convert("L").convert("RGB")
    panel.paste(Image.blend(grey, Image.new("RGB", picture.size, _PANEL), 0.45), place)
    draw.line((0, 0, _TILE, _TILE), fill=_EXCLUDED, width=2)
    return panel


def _rounded_mask() -> Image:
    from PIL import Image, ImageDraw

    mask = Image.new("L", (_TILE, _TILE), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, _TILE - 1, _TILE - 1), _ROUND, fill=255)
    return mask


def _thumbnail(read: Callable[[], bytes] | None) -> Image | None:
    from PIL import Image, ImageOps

    if read is None:
        return None
    with Image.open(io.BytesIO(read()), formats=("JPEG",)) as picture:
        picture.draft("RGB", (_TILE, _TILE))
        return ImageOps.contain(picture.convert("RGB"), (_TILE, _TILE), Image.Resampling.LANCZOS)


def _wrapped(draw: ImageDraw, text: str) -> list[str]:
    """The text on at most two lines of a tile's width."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < 2:
        taken = 1
        while taken < len(words) and draw.textlength(" ".join(words[: taken + 1]), font=_font(11)) <= _TILE:
            taken += 1
        lines.append(" ".join(words[:taken]))
        words = words[taken:]
    if words:
        lines[-1] += " …"
    return [_cut(draw, line) for line in lines]


def _cut(draw: ImageDraw, line: str) -> str:
    while draw.textlength(line, font=_font(11)) > _TILE:
        line = line[:-2].rstrip() + "…"
    return line


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
