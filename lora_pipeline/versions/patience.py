"""Waiting where the provider throttles: as long as it asks, in all no longer than the work may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lora_pipeline.providers.protocol import Throttled


class Patience:
    """A budget of seconds for waits, shared by the threads of one piece of work."""

    def __init__(self, budget_s: float, sleep: Callable[[float], object] = time.sleep) -> None:
        self._left = budget_s
        self._sleep = sleep
        self._lock = threading.Lock()
        self.waited_s = 0.0

    def outlast(self, error: Throttled) -> bool:
        """Wait as long as the provider asks. False where the budget has not that much left: give up.

        One thread waits at a time, so that several that were throttled together do not come back together.
        """
        with self._lock:
            if error.retry_after > self._left:
                return False
            # A provider that asks for nothing must not be asked in a tight loop.
            wait = max(error.retry_after, 0.1)
            self._left -= wait
            self.waited_s += wait
            self._sleep(wait)
            return True
