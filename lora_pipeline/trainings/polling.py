"""Polling: what one tick asks the provider, and in what order.

The list first, newest first, a hundred trainings a request; then what it did not show, one by one and in
rotation; then a bounded number of running trainings in full, for their progress. Records what was learned in
memory only: what follows from it is `following`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lora_pipeline.providers.protocol import (
    JobState,
    NotFound,
    ProviderError,
    TrainingJob,
    TrainingProvider,
)
from lora_pipeline.trainings.adoption import marks_of
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.reconciliation import CLOCK_SKEW, UnknownSubmission

MAX_PAGES = 100
MAX_SINGLE_READS = 20
MAX_LOG_READS = 8
_READS_AT_ONCE = 4
_HAVE_LOGS = (JobState.RUNNING, JobState.SUCCEEDED)


@dataclass(frozen=True)
class OpenTraining:
    """A followed run, as far as choosing what to ask needs it."""

    run_id: int
    job_id: str
    state: TrainingState
    submitted_at: datetime
    last_polled_at: datetime | None
    last_progress_at: datetime | None


@dataclass
class Tick:
    """What has been learned so far in this tick."""

    started: datetime
    deadline: datetime
    jobs: dict[str, TrainingJob] = field(default_factory=dict)
    by_mark: dict[str, TrainingJob] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing: list[OpenTraining] = field(default_factory=list)
    unreadable: list[OpenTraining] = field(default_factory=list)
    pages: int = 0
    single_reads: int = 0
    log_reads: int = 0
    reached_back_to: datetime | None = None
    """How far back the list was read without a gap; datetime.min where to its end."""

    def learn(self, job: TrainingJob) -> None:
        self.jobs[job.id] = job
        for mark in marks_of(job):
            self.by_mark[mark] = job


def walk_list(
    tick: Tick,
    provider: TrainingProvider,
    followed: list[OpenTraining],
    unknown: list[UnknownSubmission],
    clock: Callable[[], datetime],
) -> None:
    """Read the list until nothing is missing, or until asking one by one is cheaper than reading on."""
    missing = {run.job_id: run for run in followed}
    newest: datetime | None = None
    unknown_since = min((item.sent_at for item in unknown), default=None)
    try:
        for page in provider.list_trainings():
            tick.pages += 1
            tick.malformed.extend(page.malformed)
            for job in page.jobs:
                tick.learn(job)
                missing.pop(job.id, None)
            times = [job.created_at for job in page.jobs if job.created_at]
            if times:
                newest = newest or max(times)
                tick.reached_back_to = min(times)
            if tick.pages >= MAX_PAGES or clock() >= tick.deadline:
                return
            unknown_covered = unknown_since is None or (
                tick.reached_back_to is not None and tick.reached_back_to < unknown_since - CLOCK_SKEW
            )
            if unknown_covered and not _worth_another_page(missing, tick, newest):
                return
        tick.reached_back_to = datetime.min.replace(tzinfo=UTC)
    except ProviderError as error:
        tick.errors.append(f"list: {error}")


def _worth_another_page(missing: dict[str, OpenTraining], tick: Tick, newest: datetime | None) -> bool:
    """Whether reading on costs fewer requests than asking for the missing ones one by one.

    The pages read so far tell how much time a page spans, and so how many pages lie before the newest
    missing training: one that stays open for weeks must not make every tick walk the account's history, and
    neither must one that the list has gone past without showing it.
    """
    if not missing:
        return False
    if tick.reached_back_to is None or newest is None:
        return True
    reached = tick.reached_back_to
    ahead = [run.submitted_at for run in missing.values() if run.submitted_at <= reached + CLOCK_SKEW]
    if not ahead:
        return False
    behind = max(reached - max(ahead), timedelta(0))
    # A burst created in one moment spans no time: it is read on only for what was submitted in that moment too.
    span = max((newest - reached) / tick.pages, timedelta(seconds=1))
    return behind / span < len(ahead)


def read_stragglers(
    tick: Tick, provider: TrainingProvider, followed: list[OpenTraining], clock: Callable[[], datetime]
) -> None:
    """Ask for what the list did not show, the longest unasked first, so that nobody starves."""
    absent = [run for run in followed if run.job_id not in tick.jobs]
    due = sorted(absent, key=lambda run: _or_never(run.last_polled_at))[:MAX_SINGLE_READS]
    for run, answer in _read_each(provider, due, tick, clock):
        if isinstance(answer, TrainingJob):
            tick.learn(answer)
        elif isinstance(answer, NotFound):
            tick.missing.append(run)
        else:
            tick.errors.append(f"training {run.job_id}: {answer}")
            tick.unreadable.append(run)
            continue
        tick.single_reads += 1


def read_logs(
    tick: Tick, provider: TrainingProvider, followed: list[OpenTraining], clock: Callable[[], datetime]
) -> None:
    """Read the logs of a few running trainings (lists carry none), and of those that just ended."""
    without_logs = [run for run in followed if run.job_id in tick.jobs and tick.jobs[run.job_id].logs is None]
    running = [run for run in without_logs if tick.jobs[run.job_id].state in _HAVE_LOGS]
    due = sorted(running, key=lambda run: _or_never(run.last_progress_at))[:MAX_LOG_READS]
    for run, answer in _read_each(provider, due, tick, clock):
        if isinstance(answer, TrainingJob):
            tick.learn(answer)
            tick.log_reads += 1
        else:
            tick.errors.append(f"logs of {run.job_id}: {answer}")


def _read_each(
    provider: TrainingProvider, runs: list[OpenTraining], tick: Tick, clock: Callable[[], datetime]
) -> Iterator[tuple[OpenTraining, TrainingJob | ProviderError]]:
    """Read trainings one by one, a few at a time, until the budget is spent; trouble is an answer too."""

    def read(run: OpenTraining) -> TrainingJob | ProviderError | None:
        if clock() >= tick.deadline:
            return None
        try:
            return provider.get_training(run.job_id)
        except ProviderError as error:
            return error

    if not runs:
        return
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for run, answer in zip(runs, pool.map(read, runs), strict=True):
            if answer is not None:
                yield run, answer


def _or_never(moment: datetime | None) -> datetime:
    return moment or datetime.min.replace(tzinfo=UTC)
