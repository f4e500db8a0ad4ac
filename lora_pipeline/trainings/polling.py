"""Polling: what one tick asks the provider, and in what order.

Where the provider lists its trainings: the list first, newest first, a hundred trainings a request; then what it
did not show, one by one and in rotation; then a bounded number of running trainings in full, for their progress.
Where it lists none: every training one by one, many at once, and the bucket for those whose job is not known.
Records what was learned in memory only: what follows from it is `following`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from lora_pipeline.providers.protocol import (
    JobState,
    LeavesWeightsInBucket,
    NotFound,
    ProviderError,
    TrainingJob,
    TrainingProvider,
)
from lora_pipeline.trainings.adoption import marks_of
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.looking import look_at_training
from lora_pipeline.trainings.reconciliation import CLOCK_SKEW, UnknownSubmission, or_never

MAX_PAGES = 100
MAX_SINGLE_READS = 20
MAX_LOG_READS = 8
MAX_BUCKET_LOOKS = 100
_READS_AT_ONCE = 4
# RunPod takes 200 status requests a second; this many at 150 ms each are half of that.
_UNLISTED_READS_AT_ONCE = 16
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
    token: str
    destination: str


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
    looked_under: set[str] = field(default_factory=set)
    """Tokens under which the bucket was looked into, where that stands for the list."""
    untold: set[str] = field(default_factory=set)
    """Tokens of which the bucket said nothing because it could not be asked."""

    def covers(self, submission: UnknownSubmission) -> bool:
        """Whether it would have been seen if it were there to be seen."""
        if submission.token in self.looked_under:
            return True
        reached = self.reached_back_to
        return reached is not None and reached < submission.sent_at - CLOCK_SKEW

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
            if all(tick.covers(one) for one in unknown) and not _worth_another_page(missing, tick, newest):
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
    _read_one_by_one(tick, provider, absent, clock, most=MAX_SINGLE_READS, at_once=_READS_AT_ONCE)


def read_unlisted(
    tick: Tick, provider: TrainingProvider, followed: list[OpenTraining], clock: Callable[[], datetime]
) -> None:
    """Ask for every training of a provider that lists none, as far as the tick's budget reaches."""
    _read_one_by_one(tick, provider, followed, clock, most=len(followed), at_once=_UNLISTED_READS_AT_ONCE)


def look_in_bucket(
    tick: Tick,
    provider: LeavesWeightsInBucket,
    looked_for: Iterable[tuple[str, str]],
    clock: Callable[[], datetime],
) -> None:
    """Look for weights under the tokens (with their destinations) of trainings whose job is not known, in their order.

    What the budget does not reach, or comes after a bucket that could not be asked, is not looked for.
    """
    for token, destination in islice(looked_for, MAX_BUCKET_LOOKS):
        if clock() >= tick.deadline:
            return
        try:
            job = provider.find_training(token, destination)
        except ProviderError as error:
            tick.errors.append(f"bucket: {error}")
            tick.untold.add(token)
            return
        tick.looked_under.add(token)
        if job is not None:
            tick.by_mark[token] = job


def _read_one_by_one(
    tick: Tick,
    provider: TrainingProvider,
    runs: list[OpenTraining],
    clock: Callable[[], datetime],
    *,
    most: int,
    at_once: int,
) -> None:
    due = sorted(runs, key=lambda run: or_never(run.last_polled_at))[:most]
    for run, answer in _read_each(provider, due, tick, clock, at_once):
        if isinstance(answer, TrainingJob):
            # Under the id that was asked for: RunPod answers some ids with a suffix that it did not give them.
            tick.learn(replace(answer, id=run.job_id))
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
    due = sorted(running, key=lambda run: or_never(run.last_progress_at))[:MAX_LOG_READS]
    for run, answer in _read_each(provider, due, tick, clock, _READS_AT_ONCE):
        if isinstance(answer, TrainingJob):
            tick.learn(answer)
            tick.log_reads += 1
        else:
            tick.errors.append(f"logs of {run.job_id}: {answer}")


def _read_each(
    provider: TrainingProvider,
    runs: list[OpenTraining],
    tick: Tick,
    clock: Callable[[], datetime],
    at_once: int,
) -> Iterator[tuple[OpenTraining, TrainingJob | ProviderError]]:
    """Read trainings one by one, a few at a time, until the budget is spent; trouble is an answer too."""

    def read(run: OpenTraining) -> TrainingJob | ProviderError | None:
        if clock() >= tick.deadline:
            return None
        try:
            return look_at_training(provider, run.job_id, run.token, run.destination)
        except ProviderError as error:
            return error

    if not runs:
        return
    with ThreadPoolExecutor(at_once) as pool:
        for run, answer in zip(runs, pool.map(read, runs), strict=True):
            if answer is not None:
                yield run, answer
