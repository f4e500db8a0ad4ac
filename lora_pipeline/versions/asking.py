"""Asking the provider for single models: a few at a time, patiently, and not for ever where it has trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from lora_pipeline.providers.protocol import (
    InsufficientCredit,
    NotFound,
    ProviderError,
    Throttled,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.versions.drift import ProviderView, Trouble
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.trainings_index import ListedTraining

THREADS = 8
NEWEST = 5
MAX_VERSIONS = 2_000
OUTAGE = 10
"""After so many failures in a row nobody is asked any more: the provider has trouble, not the models."""


@dataclass(frozen=True)
class Seen:
    """What was seen of one model."""

    view: ProviderView
    seen_at: datetime
    total: int | None = None
    """Versions over all pages; None where they were not counted now."""
    newest: tuple[tuple[str, datetime | None], ...] = ()
    listed: ListedTraining | None = None
    """The newest training of the model, where the trainings list was what told its latest version."""


def ask_model(provider: TrainingProvider, model: str, now: datetime) -> Seen:
    """All versions of one model. Raises Throttled, Unauthenticated and InsufficientCredit; the rest is an answer."""
    newest: list[tuple[str, datetime | None]] = []
    known: set[str] = set()
    try:
        for version in provider.list_versions(model):
            if len(newest) < NEWEST:
                newest.append((version.id, version.created_at))
            known.add(version.id)
            if len(known) >= MAX_VERSIONS:
                break
    except (Throttled, Unauthenticated, InsufficientCredit):
        raise
    except NotFound as error:
        return Seen(ProviderView(trouble=Trouble.MODEL_NOT_FOUND, message=str(error)), now)
    except ProviderError as error:
        return Seen(ProviderView(trouble=Trouble.PROVIDER_ERROR, message=str(error)), now)
    latest, latest_at = newest[0] if newest else (None, None)
    return Seen(ProviderView(latest, latest_at, frozenset(known)), now, len(known), tuple(newest))


class Asking:
    """Single questions with a memory of how the last ones ended."""

    def __init__(self, provider: TrainingProvider, patience: Patience, clock: Callable[[], datetime]) -> None:
        self._provider = provider
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._stopped: str | None = None
        self.asked = 0

    def stop(self, reason: str) -> None:
        """Ask nothing more; every model left says why."""
        self._stopped = self._stopped or reason

    def many(self, models: Sequence[str]) -> Iterator[tuple[str, Seen]]:
        """Each model with its answer, in order."""
        with ThreadPoolExecutor(THREADS) as pool:
            yield from zip(models, pool.map(self.one, models), strict=True)

    def one(self, model: str) -> Seen:
        """One model's answer; the provider's trouble is an answer too."""
        while self._stopped is None:
            with self._lock:
                self.asked += 1
            try:
                answer = ask_model(self._provider, model, self._clock())
            except Throttled as error:
                if not self._patience.outlast(error):
                    self.stop(str(error))
                continue
            except ProviderError as error:
                # The token or the account: true of every model.
                self.stop(str(error))
                break
            self._count(answer)
            return answer
        message = self._stopped or ""
        return Seen(ProviderView(trouble=Trouble.PROVIDER_ERROR, message=message), self._clock())

    def _count(self, answer: Seen) -> None:
        failed = answer.view.trouble is Trouble.PROVIDER_ERROR
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if self._failures >= OUTAGE:
                self.stop(
                    f"not asked, since {OUTAGE} requests failed in a row; the last: {answer.view.message}"
                )
