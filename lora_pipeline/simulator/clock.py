"""Two times: the one shown on the wire, and the one by which trainings live.

Trainings live `speed` seconds in each shown second, so that a training of half an hour can end in fifteen seconds;
times in answers (`created_at`, file expiry, listing lag) stay those of the wall, so that nothing seems to come from
the future. `advance` moves both, as if the caller had waited. Times are seconds since the epoch, life in seconds
since the state file was made. Both survive a restart: while the simulator is down, trainings live on.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime

from lora_pipeline.simulator.state import State


@dataclass(frozen=True)
class Instant:
    """One reading of the clock."""

    shown: float
    life: float


class SimulatedClock:
    """A piecewise linear map between shown time and life; one point is stored at each change of speed."""

    def __init__(self, state: State, speed: float) -> None:
        self._state = state
        self._speed = speed
        self._offset = float(state.fact("clock_offset", "0"))
        rows = state.sql.execute("SELECT life, shown FROM clock_segments ORDER BY id").fetchall()
        self._life = [float(row["life"]) for row in rows]
        self._shown = [float(row["shown"]) for row in rows]
        self._latest = 0.0
        if not rows:
            self._add_point(0.0, self._read())
        else:
            self._speed = float(state.fact("clock_speed", str(speed)))
            self.set_speed(speed)
        state.remember("clock_speed", str(speed))

    def _read(self) -> float:
        # Never backwards, whatever the machine's clock does: a finished training must not start running again.
        self._latest = max(self._latest, time.time() + self._offset, self._shown[-1] if self._shown else 0.0)
        return self._latest

    def _add_point(self, life: float, shown: float) -> None:
        self._life.append(life)
        self._shown.append(shown)
        self._state.sql.execute("INSERT INTO clock_segments (life, shown) VALUES (?, ?)", (life, shown))

    def restart(self) -> None:
        """The wall's time again, and life from its start: only where nothing is left that has lived."""
        self._offset, self._latest = 0.0, 0.0
        self._life, self._shown = [], []
        self._state.sql.execute("DELETE FROM clock_segments")
        self._state.remember("clock_offset", "0")
        self._add_point(0.0, self._read())

    def now(self) -> Instant:
        """The present, on both scales."""
        shown = self._read()
        return Instant(shown, self._life[-1] + (shown - self._shown[-1]) * self._speed)

    def set_speed(self, speed: float) -> None:
        """Live faster or slower from now on."""
        if speed != self._speed:
            now = self.now()
            self._add_point(now.life, now.shown)
            self._speed = speed
            self._state.remember("clock_speed", str(speed))

    def advance(self, life_s: float) -> Instant:
        """Move on by this many life seconds at once; the shown time moves by what they take at this speed."""
        if life_s < 0:
            raise ValueError(f"the clock cannot go back: got {life_s} s, expected 0 or more")
        now = self.now()
        self._offset += life_s / (self._speed or 1.0)
        self._state.remember("clock_offset", str(self._offset))
        if not self._speed:
            self._add_point(now.life, now.shown)
            self._add_point(now.life + life_s, now.shown + life_s)
        return self.now()

    def shown_of(self, life: float) -> float:
        """When, in shown time, life was at this point."""
        i = bisect_left(self._life, life)
        if i == len(self._life):
            return self._shown[-1] + (life - self._life[-1]) / (self._speed or 1.0)
        if self._life[i] == life or i == 0:
            # Where life stood still, the first moment: a time once shown stays the same.
            return self._shown[i]
        share = (life - self._life[i - 1]) / (self._life[i] - self._life[i - 1])
        return self._shown[i - 1] + share * (self._shown[i] - self._shown[i - 1])


def stamp(seconds: float, digits: int = 6) -> str:
    """A time as the provider writes it: UTC with a Z and six digits (nine in the answer to a creation)."""
    whole = datetime.fromtimestamp(seconds, tz=UTC)
    fraction = f"{whole.microsecond:06d}".ljust(digits, "7")
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{fraction}Z"
