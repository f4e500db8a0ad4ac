"""The providers' limits: sliding windows of real time, one for each kind of request that is counted by itself."""

from __future__ import annotations

import math
import time
from collections import deque


class RateLimit:
    """A sliding window of real time: a minute at Replicate, ten seconds at RunPod."""

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._hits: deque[float] = deque()

    def hit(self, limit: int | None) -> tuple[int | None, int]:
        """Count a request: (requests left, None where one too many; seconds until the window frees one)."""
        if limit is None:
            return 3000, 0
        now = time.monotonic()
        while self._hits and self._hits[0] <= now - self._window_s:
            self._hits.popleft()
        reset = math.ceil(self._hits[0] + self._window_s - now) if self._hits else math.ceil(self._window_s)
        if len(self._hits) >= limit:
            return None, max(reset, 1)
        self._hits.append(now)
        return limit - len(self._hits), reset
