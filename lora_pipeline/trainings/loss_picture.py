"""The loss curve of a training as a picture: at most 600 pixels wide, because Dagster's pages do not scale."""

from __future__ import annotations

import io
from collections.abc import Sequence

WIDTH, HEIGHT = 600, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 28
_INK, _GRID, _PAPER, _LINE = (60, 60, 67), (224, 224, 230), (255, 255, 255), (79, 67, 221)


def loss_picture(points: Sequence[Sequence[float]]) -> bytes:
    """A PNG of `[step, loss]` pairs; says so where there are fewer than two."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=12)
    if len(points) < 2:
        draw.text((_LEFT, HEIGHT / 2), "no loss has been logged yet", _INK, font=font)
        return _png(picture)
    steps, losses = [float(step) for step, _ in points], [float(loss) for _, loss in points]
    low, high = min(losses), max(losses)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    for part in range(5):
        value = low + (high - low) * part / 4
        y = _down(value, low, high)
        draw.line([(_LEFT, y), (WIDTH - _RIGHT, y)], _GRID)
        draw.text((4, y - 7), f"{value:.3g}", _INK, font=font)
    across = max(steps[-1] - steps[0], 1.0)
    room = WIDTH - _LEFT - _RIGHT
    line = [
        (_LEFT + room * (step - steps[0]) / across, _down(loss, low, high))
        for step, loss in zip(steps, losses, strict=True)
    ]
    draw.line(line, _LINE, width=2, joint="curve")
    draw.text((_LEFT, HEIGHT - 20), f"step {steps[0]:.0f}", _INK, font=font)
    last = f"step {steps[-1]:.0f}: {losses[-1]:.4g}"
    draw.text((WIDTH - _RIGHT - draw.textlength(last, font=font), HEIGHT - 20), last, _INK, font=font)
    return _png(picture)


def _down(value: float, low: float, high: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)


def _png(picture: object) -> bytes:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
