"""The provider's list of trainings as an index: which versions a model's trainings made, newest first.

One request shows a hundred trainings, and with each its version and its weights. Read only as far as somebody
needs it. The provider never tells a training's destination: the version's own name does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lora_pipeline.identity import IdentityError, parse_version
from lora_pipeline.providers.protocol import (
    JobState,
    ProviderError,
    Throttled,
    TrainingJob,
    TrainingPage,
    TrainingProvider,
)
from lora_pipeline.trainings.adoption import marks_of
from lora_pipeline.versions.patience import Patience

MAX_PAGES = 2_000
_LONGEST_TRAINING = timedelta(days=2)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ListedTraining:
    """A succeeded training, and the version that it made."""

    training_id: str
    model: str
    version: str
    """Hash."""
    weights_url: str | None = field(repr=False)
    """Word for word; whoever has it may download them."""
    completed_at: datetime | None
    marks: tuple[str, ...] = field(default=(), repr=False)
    """What in it says that it is one of ours."""


class TrainingsIndex:
    """The list as far as it has been read, for the models that matter. One thread reads while others look things up."""

    def __init__(
        self,
        provider: TrainingProvider,
        models: Collection[str],
        patience: Patience,
        *,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._provider = provider
        self._models = models
        self._patience = patience
        self._max_pages = max_pages
        self._unread: Iterator[TrainingPage] | None = None
        self._by_model: dict[str, dict[str, ListedTraining]] = {}
        self._first_page: dict[str, int] = {}
        self._reading = threading.Lock()
        self._knowing = threading.Lock()
        self.pages = 0
        self.requests = 0
        self.trainings = 0
        self.reached_back_to: datetime | None = None
        """Creation of the oldest training read."""
        self.malformed = 0
        """Items that could not be read, or whose version could not: they tell nothing about any model."""
        self.ended = False
        """Whether there is nothing more to read, or reading on is of no use."""
        self.error: ProviderError | None = None

    def newest(self, model: str) -> ListedTraining | None:
        """The training of a model that completed last, in what was read."""
        with self._knowing:
            made = list(self._by_model.get(model, {}).values())
        return max(made, key=lambda one: one.completed_at or _NEVER, default=None)

    def made(self, model: str, version_hash: str) -> ListedTraining | None:
        """The training that made a version, in what was read."""
        return self._by_model.get(model, {}).get(version_hash)

    def is_behind(self, model: str) -> bool:
        """Whether a whole page was read after the one that first showed the model.

        The list is ordered by creation: of two trainings that overlapped, the later one to complete may come next.
        """
        return self._first_page.get(model, self.pages) < self.pages

    @property
    def models_seen(self) -> int:
        """How many of the models that matter have a training in what was read."""
        return len(self._by_model)

    def find(self, model: str, version_hash: str, made_at: datetime | None) -> ListedTraining | None:
        """The same, reading on for it, but not to trainings that were created long before it was made."""
        oldest = made_at - _LONGEST_TRAINING if made_at else _NEVER
        self.read(
            lambda: (
                self.made(model, version_hash) is not None
                or (self.reached_back_to is not None and self.reached_back_to < oldest)
            )
        )
        return self.made(model, version_hash)

    def read(self, enough: Callable[[], bool]) -> None:
        """Read pages until `enough` says so, or the list ends. An error ends it too and stands in `error`."""
        with self._reading:
            while not self.ended and not enough():
                page = self._next_page()
                if page is None:
                    self.ended = True
                    return
                self.pages += 1
                self.malformed += len(page.malformed)
                self.trainings += len(page.jobs)
                for job in page.jobs:
                    self._learn(job)
                times = [job.created_at for job in page.jobs if job.created_at is not None]
                self.reached_back_to = min(times, default=self.reached_back_to)
                self.ended = self.pages >= self._max_pages

    def _next_page(self) -> TrainingPage | None:
        while True:
            if self._unread is None:
                self._unread = self._provider.list_trainings()
            try:
                self.requests += 1
                return next(self._unread)
            except StopIteration:
                self.requests -= 1
                return None
            except Throttled as error:
                # The walk is over with its error; it starts again from the newest, and what it knows stays known.
                self._unread = None
                if not self._patience.outlast(error):
                    self.error = error
                    return None
            except ProviderError as error:
                self.error = error
                return None

    def _learn(self, job: TrainingJob) -> None:
        if job.state is not JobState.SUCCEEDED or not job.output_version:
            return
        try:
            version = parse_version(job.output_version)
        except IdentityError:
            self.malformed += 1
            return
        model = str(version.model) if version.model else None
        if model is None or model not in self._models:
            return
        training = ListedTraining(
            job.id, model, version.hash, job.output_weights, job.completed_at or job.created_at, marks_of(job)
        )
        with self._knowing:
            self._by_model.setdefault(model, {})[version.hash] = training
            self._first_page.setdefault(model, self.pages)
