"""Holding a batch back while the provider throttles it: nobody asks again before the provider said.

What was throttled is for the batch to try again; nothing here knows a training.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta

_AT_LEAST = 1.0
"""A provider that asks for no wait must not be asked in a tight loop."""


class Brake:
    """One for all threads of a batch. Gives up where a wait, or all of them together, would take too long."""

    def __init__(self, *, longest: timedelta, together: timedelta) -> None:
        self._longest = longest.total_seconds()
        self._left = together.total_seconds()
        self._until = 0.0
        self._lock = threading.Lock()
        self._gave_up = threading.Event()

    def pull(self, seconds: float) -> None:
        """The provider asked one thread to wait this long: it means all of them."""
        with self._lock:
            now = time.monotonic()
            until = max(self._until, now + max(seconds, _AT_LEAST))
            self._left -= until - max(self._until, now)
            self._until = until
            if seconds > self._longest or self._left < 0:
                self._gave_up.set()

    def wait(self) -> bool:
        """Wait until the provider may be asked again. False where that is not worth waiting for."""
        while (seconds := self._until - time.monotonic()) > 0 and not self._gave_up.wait(seconds):
            pass
        return not self._gave_up.is_set()
