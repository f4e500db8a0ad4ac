"""What batches have in common: a lease that a sensor took for them, and a report of what became of each item."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from lora_pipeline.connections import Connections
from lora_pipeline.trainings.leases import give_lease_back, renew_lease, take_lease

_RENEWALS = 10
"""How often a lease is renewed within its own time: a few renewals may fail to come in time without harm."""


@dataclass(frozen=True)
class Failure:
    """One item that could not be done; the others went on."""

    model_key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.model_key}: {self.reason}"


@dataclass(frozen=True)
class BatchReport:
    """What a batch did."""

    done: tuple[str, ...]
    failures: tuple[Failure, ...]
    verb: str

    @property
    def summary(self) -> str:
        return f"{len(self.done)} {self.verb}, {len(self.failures)} not"


class BatchLease:
    """The lease a batch works under. `renew` says whether to go on; `keep` lets it run out by itself."""

    def __init__(self, connections: Connections, name: str, token: str | None) -> None:
        self._connections = connections
        self._name = name
        self._token = token
        self._sure_until: datetime | None = None
        self.keep = False
        """Set where everything failed: the next batch then waits out the lease instead of failing at once again."""

    def renew(self) -> bool:
        """Hold on to the lease; False where another batch has it, so that nothing (more) is done."""
        now, duration = self._connections.now(), self._connections.settings.lease
        if self._sure_until is not None and now < self._sure_until:
            return True
        held = self._token is not None and renew_lease(
            self._connections.database, self._name, self._token, duration, now
        )
        # Nobody can have taken it before it ends: asking again for each of a thousand models would be in vain.
        self._sure_until = now + duration / _RENEWALS if held else None
        return held


@contextmanager
def batch_lease(connections: Connections, name: str, token: str | None) -> Iterator[BatchLease]:
    """Work under the lease that a tick took, or take one."""
    database, duration = connections.database, connections.settings.lease
    held = token or take_lease(database, name, duration, connections.now())
    lease = BatchLease(connections, name, held)
    try:
        yield lease
    finally:
        if held is not None and not lease.keep:
            give_lease_back(database, name, held, connections.now())
