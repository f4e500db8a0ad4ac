"""Following: one tick of the training monitor, from what the provider says to states in the database.

What is asked, and in what order, is `polling`'s. A tick keeps to its time budget, and a second tick that overlaps
it does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, not_, or_, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.providers.protocol import (
    JobState,
    LeavesWeightsInBucket,
    TrainingJob,
    TrainingProvider,
)
from lora_pipeline.trainings.late_landings import given_up_requests, report_late_landings
from lora_pipeline.trainings.leases import leased
from lora_pipeline.trainings.lifecycle import FOLLOWED, TrainingState
from lora_pipeline.trainings.outputs import outputs_known
from lora_pipeline.trainings.polling import (
    OpenTraining,
    Tick,
    look_in_bucket,
    read_logs,
    read_stragglers,
    read_unlisted,
    walk_list,
)
from lora_pipeline.trainings.reconciliation import (
    ReconcileRules,
    UnknownSubmission,
    settle,
    unknown_submissions,
)
from lora_pipeline.trainings.transitions import Moved, move, observe

log = logging.getLogger(__name__)

# A provider forgets a training that never started after about half an hour; before that a 404 is lag.
_LOST_AFTER = timedelta(minutes=30)
_SEEN_CHUNK = 5_000
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
        unknown = unknown_submissions(database, provider.name)
        given_up = given_up_requests(database, provider.name, started)
        if not followed and not unknown and not given_up:
            log.info("No in-progress trainings found")
            return FollowReport()
        tick = Tick(started, deadline=started + rules.budget)
        if isinstance(provider, LeavesWeightsInBucket):
            # First: however many are open, each tick looks for some of those that nobody else would find.
            look_in_bucket(tick, provider, ((one.token, one.destination) for one in unknown), clock)
            look_in_bucket(tick, provider, ((one.token, one.destination) for one in given_up), clock)
            read_unlisted(tick, provider, followed, clock)
        else:
            walk_list(tick, provider, followed, unknown, clock)
            read_stragglers(tick, provider, followed, clock)
            read_logs(tick, provider, followed, clock)
        moved = _record(database, provider, tick, followed, unknown, rules, clock())
        if given_up:
            moved += report_late_landings(
                database, given_up, tick.by_mark.values(), provider.simulated, clock()
            )
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


def _followed(database: Database, provider: str) -> list[OpenTraining]:
    columns = (
        TrainingRun.id,
        TrainingRun.training_id,
        TrainingRun.state,
        TrainingRun.submitted_at,
        TrainingRun.last_polled_at,
        TrainingRun.last_progress_at,
        TrainingRun.token,
        TrainingRun.destination,
    )
    incomplete = (TrainingRun.state == TrainingState.SUCCEEDED) & not_(outputs_known())
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
        OpenTraining(
            run_id, job_id, TrainingState(state), submitted_at, polled, progressed, token, destination
        )
        for run_id, job_id, state, submitted_at, polled, progressed, token, destination in rows
        if job_id is not None and submitted_at is not None
    ]


def _record(
    database: Database,
    provider: TrainingProvider,
    tick: Tick,
    followed: list[OpenTraining],
    unknown: list[UnknownSubmission],
    rules: FollowRules,
    now: datetime,
) -> list[Moved]:
    changed = {
        run.run_id: job
        for run in followed
        if (job := tick.jobs.get(run.job_id)) is not None and _says_something_new(run, job)
    }
    # What was found is not noted as looked for before it is adopted: a crash in between would end the search.
    in_vain = [one.run_id for one in unknown if tick.covers(one) and one.job_in(tick.by_mark) is None]
    answered = [run.run_id for run in followed if run.job_id in tick.jobs] + [r.run_id for r in tick.missing]
    with database.begin() as session:
        moved = observe(session, changed, now)
        _note_asked(session, answered + in_vain, now, failures=0)
        # They were asked too: those that always fail must not keep the others from their turn.
        unreadable = [run.run_id for run in tick.unreadable]
        unreadable += [one.run_id for one in unknown if one.token in tick.untold]
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
        looked_in_vain=in_vain,
        simulated=provider.simulated,
        rules=_reconcile_rules(provider, tick, rules.reconcile),
        looked_at=tick.started,
        now=now,
    )


def _reconcile_rules(provider: TrainingProvider, tick: Tick, rules: ReconcileRules) -> ReconcileRules:
    """Never send again on a list with items that could not be read, nor where there is no list at all."""
    proves_absence = not tick.malformed and not isinstance(provider, LeavesWeightsInBucket)
    return rules if proves_absence else replace(rules, resubmit_after=None)


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


def _says_something_new(run: OpenTraining, job: TrainingJob) -> bool:
    """Most trainings of most ticks are as they were: those rows are not locked, loaded or rewritten."""
    return job.logs is not None or _STATE_SHOWN_BY.get(job.state) is not run.state


def _lose(session: Session, seen: OpenTraining, now: datetime) -> Moved | None:
    if now - seen.submitted_at < _LOST_AFTER:
        return None
    run = session.get_one(TrainingRun, seen.run_id, with_for_update=True)
    if run.state == TrainingState.SUCCEEDED:
        reason = (
            f"the provider said that training {seen.job_id} succeeded, never named its weights, and no longer knows "
            f"it (404). Decide with: lora-pipeline trainings resolve {seen.run_id} --retry | --abandon"
        )
        return move(session, run, TrainingState.HELD, now, reason=reason)
    if run.state not in (TrainingState.SUBMITTED, TrainingState.RUNNING):
        return None
    reason = (
        f"the provider no longer knows training {seen.job_id} (404), {now - seen.submitted_at} after it was "
        f"submitted. It stays looked for; decide with: lora-pipeline trainings resolve {seen.run_id}"
    )
    return move(session, run, TrainingState.LOST, now, reason=reason)
