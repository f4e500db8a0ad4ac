"""Following: one tick of the training monitor, from the provider's list to states in the database.

The list is read first, newest first, a hundred trainings a request; only what it did not show is asked for
one by one, in rotation, and a bounded number of running trainings is read in full for their progress. A
tick keeps to its time budget, and a second tick that overlaps it does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.providers.protocol import (
    JobState,
    NotFound,
    ProviderError,
    TrainingJob,
    TrainingProvider,
)
from lora_pipeline.trainings.adoption import marks_of
from lora_pipeline.trainings.late_landings import given_up_requests, report_late_landings
from lora_pipeline.trainings.leases import leased
from lora_pipeline.trainings.lifecycle import FOLLOWED, TrainingState
from lora_pipeline.trainings.reconciliation import (
    CLOCK_SKEW,
    ReconcileRules,
    UnknownSubmission,
    settle,
    unknown_submissions,
)
from lora_pipeline.trainings.transitions import Moved, move, observe

log = logging.getLogger(__name__)

MAX_PAGES = 100
MAX_SINGLE_READS = 20
MAX_LOG_READS = 8
_READS_AT_ONCE = 4
# A provider forgets a training that never started after about half an hour; before that a 404 is lag.
_LOST_AFTER = timedelta(minutes=30)
_SEEN_CHUNK = 5_000
_HAVE_LOGS = (JobState.RUNNING, JobState.SUCCEEDED)
_STATE_SHOWN_BY = {JobState.QUEUED: TrainingState.SUBMITTED, JobState.RUNNING: TrainingState.RUNNING}


@dataclass(frozen=True)
class FollowRules:
    """How one tick behaves."""

    budget: timedelta
    reconcile: ReconcileRules


@dataclass(frozen=True)
class FollowReport:
    """What one tick did."""

    open: int = 0
    unknown: int = 0
    pages: int = 0
    single_reads: int = 0
    log_reads: int = 0
    malformed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()
    overlapped: bool = False
    """Another tick was at work: nothing was done."""

    @property
    def reached_provider(self) -> bool:
        """False where there was something to ask and every request failed: the tick has to fail too."""
        return not self.errors or self.pages + self.single_reads + self.log_reads > 0


@dataclass(frozen=True)
class _Open:
    """A followed run, as far as choosing what to ask needs it."""

    run_id: int
    job_id: str
    state: TrainingState
    submitted_at: datetime
    last_polled_at: datetime | None
    last_progress_at: datetime | None


@dataclass
class _Tick:
    """What has been learned so far in this tick."""

    started: datetime
    deadline: datetime
    jobs: dict[str, TrainingJob] = field(default_factory=dict)
    by_mark: dict[str, TrainingJob] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing: list[_Open] = field(default_factory=list)
    unreadable: list[_Open] = field(default_factory=list)
    pages: int = 0
    single_reads: int = 0
    log_reads: int = 0
    reached_back_to: datetime | None = None
    """How far back the list was read without a gap; datetime.min where to its end."""

    def learn(self, job: TrainingJob) -> None:
        self.jobs[job.id] = job
        for mark in marks_of(job):
            self.by_mark[mark] = job


def follow_trainings(
    database: Database,
    provider: TrainingProvider,
    rules: FollowRules,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FollowReport:
    """Ask the provider how every open training stands, and record it. Never waits longer than its budget."""
    started = clock()
    with leased(database, f"follow {provider.name}", rules.budget * 1.5, clock) as ours:
        if not ours:
            return FollowReport(overlapped=True)
        followed = _followed(database, provider.name)
        unknown = unknown_submissions(database, provider.name, started)
        given_up = given_up_requests(database, provider.name, started)
        if not followed and not unknown and not given_up:
            log.info("No in-progress trainings found")
            return FollowReport()
        tick = _Tick(started, deadline=started + rules.budget)
        _walk_list(tick, provider, followed, unknown, clock)
        _read_stragglers(tick, provider, followed, clock)
        _read_logs(tick, provider, followed, clock)
        moved = _record(database, provider, tick, followed, unknown, rules, clock())
        if given_up:
            moved += report_late_landings(database, given_up, tick.jobs.values(), provider.simulated, clock())
    return FollowReport(
        open=len(followed),
        unknown=len(unknown),
        pages=tick.pages,
        single_reads=tick.single_reads,
        log_reads=tick.log_reads,
        malformed=tuple(tick.malformed),
        errors=tuple(tick.errors),
        moved=tuple(moved),
    )


def _followed(database: Database, provider: str) -> list[_Open]:
    columns = (
        TrainingRun.id,
        TrainingRun.training_id,
        TrainingRun.state,
        TrainingRun.submitted_at,
        TrainingRun.last_polled_at,
        TrainingRun.last_progress_at,
    )
    incomplete = (TrainingRun.state == TrainingState.SUCCEEDED) & or_(
        TrainingRun.output_version.is_(None), TrainingRun.output_artifact_url.is_(None)
    )
    with database.read() as session:
        rows = session.execute(
            select(*columns)
            .where(
                TrainingRun.provider == provider,
                or_(TrainingRun.state.in_(FOLLOWED), incomplete),
                TrainingRun.training_id.is_not(None),
            )
            .order_by(TrainingRun.id)
        ).all()
    return [
        _Open(run_id, job_id, TrainingState(state), submitted_at, polled, progressed)
        for run_id, job_id, state, submitted_at, polled, progressed in rows
        if job_id is not None and submitted_at is not None
    ]


def _walk_list(
    tick: _Tick,
    provider: TrainingProvider,
    followed: list[_Open],
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


def _worth_another_page(missing: dict[str, _Open], tick: _Tick, newest: datetime | None) -> bool:
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


def _read_stragglers(
    tick: _Tick, provider: TrainingProvider, followed: list[_Open], clock: Callable[[], datetime]
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


def _read_logs(
    tick: _Tick, provider: TrainingProvider, followed: list[_Open], clock: Callable[[], datetime]
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
    provider: TrainingProvider, runs: list[_Open], tick: _Tick, clock: Callable[[], datetime]
) -> Iterator[tuple[_Open, TrainingJob | ProviderError]]:
    """Read trainings one by one, a few at a time, until the budget is spent; trouble is an answer too."""

    def read(run: _Open) -> TrainingJob | ProviderError | None:
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


def _record(
    database: Database,
    provider: TrainingProvider,
    tick: _Tick,
    followed: list[_Open],
    unknown: list[UnknownSubmission],
    rules: FollowRules,
    now: datetime,
) -> list[Moved]:
    changed = {
        run.run_id: job
        for run in followed
        if (job := tick.jobs.get(run.job_id)) is not None and _says_something_new(run, job)
    }
    answered = [run.run_id for run in followed if run.job_id in tick.jobs] + [r.run_id for r in tick.missing]
    with database.begin() as session:
        moved = observe(session, changed, now)
        _note_asked(session, answered, now, failures=0)
        # They were asked too: those that always fail must not keep the others from their turn.
        unreadable = [run.run_id for run in tick.unreadable]
        _note_asked(session, unreadable, now, failures=TrainingRun.poll_failures + 1)
        for run in tick.missing:
            change = _lose(session, run, now)
            moved.extend([change] if change else [])
    if not unknown:
        return moved
    return moved + settle(
        database,
        unknown,
        tick.by_mark,
        covered_since=tick.reached_back_to,
        simulated=provider.simulated,
        # An item that could not be read may be the very one that is missed: never send again on such a list.
        rules=replace(rules.reconcile, resubmit_after=None) if tick.malformed else rules.reconcile,
        looked_at=tick.started,
        now=now,
    )


def _note_asked(
    session: Session, run_ids: list[int], now: datetime, *, failures: int | ColumnElement[int]
) -> None:
    for start in range(0, len(run_ids), _SEEN_CHUNK):
        session.execute(
            update(TrainingRun)
            .where(TrainingRun.id.in_(run_ids[start : start + _SEEN_CHUNK]))
            .values(last_polled_at=now, poll_failures=failures)
            .execution_options(synchronize_session=False)
        )


def _says_something_new(run: _Open, job: TrainingJob) -> bool:
    """Most trainings of most ticks are as they were: those rows are not locked, loaded or rewritten."""
    return job.logs is not None or _STATE_SHOWN_BY.get(job.state) is not run.state


def _lose(session: Session, seen: _Open, now: datetime) -> Moved | None:
    if now - seen.submitted_at < _LOST_AFTER:
        return None
    run = session.get_one(TrainingRun, seen.run_id, with_for_update=True)
    if run.state not in (TrainingState.SUBMITTED, TrainingState.RUNNING):
        return None
    reason = (
        f"the provider no longer knows training {seen.job_id} (404), {now - seen.submitted_at} after it was "
        f"submitted. It stays looked for; decide with: lora-pipeline trainings resolve {seen.run_id}"
    )
    return move(session, run, TrainingState.LOST, now, reason=reason)


def _or_never(moment: datetime | None) -> datetime:
    return moment or datetime.min.replace(tzinfo=UTC)
