"""Bounds on what one caller, or all together, may ask of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from lora_pipeline.api.problems import Problem

_MOST_NAMES = 10_000


class TokenBuckets:
    """A bucket for each name: `rate` tokens a second, at most `burst` at once. Thread-safe."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> float:
        """Take a token: 0 where there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            left = self._left(name, now)
            if left < 1:
                return (1 - left) / self._rate
            if len(self._buckets) >= _MOST_NAMES and name not in self._buckets:
                self._forget(now)
            self._buckets[name] = (left - 1, now)
            return 0.0

    def _left(self, name: str, now: float) -> float:
        left, then = self._buckets.get(name, (self._burst, now))
        return min(self._burst, left + (now - then) * self._rate)

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again: they are as good as none."""
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items() if self._left(name, now) < self._burst
        }


class AtMost:
    """Room for a few slow requests at a time, so that quick ones always find a thread."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One place for the length of the block; a Problem (503, try again) where all are taken."""
        if not self._places.acquire(blocking=False):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "this server is busy with such requests; try again",
                retry_after=2,
            )
        try:
            yield
        finally:
            self._places.release()
