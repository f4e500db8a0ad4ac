"""What batches have in common: a lease that a sensor took for them, and a report of what became of each item."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lora_pipeline.connections import Connections
from lora_pipeline.trainings.leases import give_lease_back, renew_lease, take_lease


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


@contextmanager
def batch_lease(connections: Connections, name: str, token: str | None) -> Iterator[Callable[[], bool]]:
    """Work under the lease that a tick took (or take one): yields `renew`, which says whether to go on.

    Where another batch holds the lease, `renew` says False from the start and nothing is done.
    """
    database, duration = connections.database, connections.settings.lease
    held = token or take_lease(database, name, duration, connections.now())

    def renew() -> bool:
        return held is not None and renew_lease(database, name, held, duration, connections.now())

    try:
        yield renew
    finally:
        if held is not None:
            give_lease_back(database, name, held, connections.now())
