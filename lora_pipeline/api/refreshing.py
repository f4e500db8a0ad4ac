"""What keeps progress fresh while clients poll: one look at the provider for all of them, and what was last shown."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime, timedelta

from lora_pipeline.connections import Connections
from lora_pipeline.settings import ProviderName
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.standing import Standing, usual_seconds

log = logging.getLogger(__name__)

FRESH = timedelta(seconds=5)
"""A row that was looked at since then is not asked about again."""
_BUDGET = timedelta(seconds=10)
_PAUSE_FOR_WORK = 4
"""A refresh is followed by a pause of this many times its length: the provider is asked a fifth of the time at most."""
_USUAL_FOR_S = 60.0
_MOST_RUNS = 50_000


class Refresher:
    """Follows all open trainings of a provider once, for whoever asks: one at a time, and a pause in between."""

    def __init__(self, connections: Connections, provider: ProviderName) -> None:
        self._connections = connections
        self._provider = provider
        self._busy = threading.Lock()
        self._not_before = 0.0

    def wanted(self, standing: Standing, now: datetime) -> bool:
        """Whether the provider could tell something newer, and it is time to ask."""
        if not standing.followed or time.monotonic() < self._not_before or self._busy.locked():
            return False
        return standing.last_polled_at is None or now - standing.last_polled_at > FRESH

    def work(self) -> None:
        """Ask, unless another thread does, or has just done so. Trouble is the status sensor's to show."""
        if not self._busy.acquire(blocking=False):
            return
        began = time.monotonic()
        try:
            if began >= self._not_before:
                self._follow()
        finally:
            took = time.monotonic() - began
            self._not_before = time.monotonic() + max(FRESH.total_seconds(), _PAUSE_FOR_WORK * took)
            self._busy.release()

    def _follow(self) -> None:
        connections, settings = self._connections, self._connections.settings
        rules = FollowRules(_BUDGET, ReconcileRules(settings.reconcile_grace, settings.auto_resubmit_after))
        try:
            provider = connections.provider_named(self._provider)
            report = follow_trainings(connections.database, provider, rules, clock=connections.now)
        except Exception:  # the answer has left; the status sensor meets the same trouble and shows it
            log.exception("progress could not be refreshed")
            return
        for error in report.errors:
            log.warning("progress: %s", error)


class ProgressBoard:
    """What each run was last shown at: an estimate that the trainer's own word overtakes never goes backwards."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._shown: OrderedDict[int, int] = OrderedDict()
        self._usual: tuple[float, dict[str, float]] | None = None

    def usual_seconds(self) -> dict[str, float]:
        """How long trainings usually take at each provider; asked of the database once a minute."""
        known = self._usual
        if known is None or time.monotonic() - known[0] > _USUAL_FOR_S:
            known = (time.monotonic(), usual_seconds(self._connections.database))
            self._usual = known
        return known[1]

    def shown(self, standing: Standing) -> Standing:
        """The standing as it is to be shown after what was shown before."""
        if standing.run_id is None:
            return standing
        with self._lock:
            before = self._shown.get(standing.run_id, 0)
            if standing.progress >= before:
                self._shown[standing.run_id] = standing.progress
                self._shown.move_to_end(standing.run_id)
                if len(self._shown) > _MOST_RUNS:
                    self._shown.popitem(last=False)
        if standing.progress >= before:
            return standing
        return replace(standing, progress=before, estimated=True)
