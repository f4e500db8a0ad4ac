"""The provider's limits: a sliding window of one minute of real time, one for creations and one for the rest."""

from __future__ import annotations

import math
import time
from collections import deque


class RateLimit:
    """A sliding window of one minute of real time."""

    def __init__(self) -> None:
        self._hits: deque[float] = deque()

    def hit(self, per_minute: int | None) -> tuple[int | None, int]:
        """Count a request: (requests left, None where one too many; seconds until the window frees one)."""
        if per_minute is None:
            return 3000, 0
        now = time.monotonic()
        while self._hits and self._hits[0] <= now - 60:
            self._hits.popleft()
        reset = math.ceil(self._hits[0] + 60 - now) if self._hits else 60
        if len(self._hits) >= per_minute:
            return None, max(reset, 1)
        self._hits.append(now)
        return per_minute - len(self._hits), reset
