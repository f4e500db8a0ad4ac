"""How far a training has come: read off the trainer's log, or estimated from the time that has passed.

Pure. What is read is fact; what is estimated is labelled so by the caller and never written as fact. Neither says
that a training has ended: a log shows 100 % before the upload, and trainings fail there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

_LABELS = ("flux_train_replicate:", "steps:")
"""What ai-toolkit and kohya's scripts put before their bar."""
# Their tqdm bar, ended by a carriage return. Downloads, latents and uploads draw bars of the same shape
# under other labels, or under none. The rate is not followed by a loss on the first lines. A bar counts only with
# its closing bracket: cut off by a kill, `100/1000` would read as `100/10`.
_BAR = re.compile(
    r"(?<![\w.-])(?:flux_train_replicate|steps):\s*\d{1,3}%\s?\|[^|\r\n]{0,200}\|\s*(?P<step>\d{1,9})/(?P<total>\d{1,9})"
    r"\s*\[[\d:]{1,12}<(?P<left>[\d:]{1,12}|\?)[^\]\r\n]{0,200}\]",
    re.ASCII,
)
_LOSS = re.compile(r"loss[:=]\s*(?P<loss>[-+.\w]{1,32})")
# A killed worker can leave the last bar half written; one of the bars before it is whole.
_BARS_TRIED = 50

FIRST_GUESS_SETUP_S = 900.0
FIRST_GUESS_STEP_S = 0.9
"""Trainings took 0.64-1.14 s a step; with a quarter of an hour around them, 1,000 steps take the half hour in the
middle of the 20-40 minutes that people are told to expect."""

_ESTIMATE_AT_EXPECTED = 90.0
_ESTIMATE_LIMIT = 98.0


@dataclass(frozen=True)
class Progress:
    """One line of the trainer's log."""

    percent: int
    """0-100, rounded down."""
    step: int
    total: int
    loss: float | None
    seconds_left: float | None
    """The trainer's own estimate; None before its first step."""


def read_progress(logs: str) -> Progress | None:
    """The newest progress in the log; None where the trainer has not printed any.

    Searches from the end, so that a log of many megabytes costs no more than its last lines.
    """
    label, end = _label(logs), len(logs)
    for _ in range(_BARS_TRIED):
        start = logs.rfind(label, 0, end)
        if start < 0:
            return None
        match = _BAR.match(logs, start)
        if match and int(match["total"]) > 0:
            return _progress(match)
        end = start
    return None


def _bars(logs: str) -> Iterator[re.Match[str]]:
    # A plain search for the label is many times faster over the megabytes between two bars than the pattern's own.
    label = _label(logs)
    start = logs.find(label)
    while start >= 0:
        match = _BAR.match(logs, start)
        if match:
            yield match
        start = logs.find(label, start + len(label))


def _label(logs: str) -> str:
    """Whose log it is: one trainer's bar may run beside other things that another's label occurs in."""
    return next((label for label in _LABELS if label in logs), _LABELS[0])


def _progress(match: re.Match[str]) -> Progress:
    total = int(match["total"])
    step = min(int(match["step"]), total)
    return Progress(
        percent=100 * step // total,
        step=step,
        total=total,
        loss=_loss(match[0]),
        seconds_left=_seconds(match["left"]),
    )


def _loss(line: str) -> float | None:
    match = _LOSS.search(line)
    try:
        loss = float(match["loss"]) if match else math.nan
    except ValueError:
        return None
    return loss if math.isfinite(loss) else None


def _seconds(clock: str) -> float | None:
    """tqdm's `MM:SS` or `H:MM:SS`."""
    if not all(part.isdigit() for part in clock.split(":")):
        return None
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return float(seconds)


def read_losses(logs: str, limit: int = 200) -> list[tuple[int, float]]:
    """The loss curve as (step, loss) pairs by rising step, thinned evenly to at most `limit`; both ends stay.

    A step that is printed twice counts as it was printed last.
    """
    curve: dict[int, float] = {}
    for match in _bars(logs):
        loss = _loss(match[0])
        if loss is not None:
            curve[int(match["step"])] = loss
    points = sorted(curve.items())
    if len(points) <= limit:
        return points
    if limit < 2:
        return points[-1:] if limit == 1 else []
    last = len(points) - 1
    return [points[round(i * last / (limit - 1))] for i in range(limit)]


def expected_seconds(history: Sequence[float], steps: int) -> float:
    """How long a training of `steps` steps will take: the median of comparable ones, or a first guess."""
    known = [seconds for seconds in history if math.isfinite(seconds) and seconds > 0]
    if known:
        return float(median(known))
    return FIRST_GUESS_SETUP_S + FIRST_GUESS_STEP_S * max(steps, 0)


def estimate_progress(elapsed: float, expected: float) -> int:
    """Percent that has probably passed after `elapsed` of `expected` seconds: never falls, never reaches 99.

    Linear up to 90 at the expected time, then ever slower: a training that is late looks late, not finished.
    """
    if not (elapsed > 0 and 0 < expected < math.inf):
        return 0
    share = min(elapsed / expected, 1e6)
    if share <= 1:
        return int(_ESTIMATE_AT_EXPECTED * share)
    return int(_ESTIMATE_LIMIT - (_ESTIMATE_LIMIT - _ESTIMATE_AT_EXPECTED) * math.exp(1 - share))


def merge_progress(shown: int, seen: int) -> int:
    """What to show after `shown` when `seen` is learnt: never backwards, whatever order the news arrives in."""
    return max(0, min(max(shown, seen), 100))
