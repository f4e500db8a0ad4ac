"""Submissions of unknown outcome: found by their token at the provider or in the bucket, or held for a person.

Absence proves little: a list may lag, a request may land late, and a worker leaves nothing before its end. So a run is held only after a
walk that covers its time came back without it once the grace time was over, and it stays looked for even
then. Sending again by itself is opt-in, for those who prefer a possible second payment to a question.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.providers.protocol import TrainingJob
from lora_pipeline.trainings.adoption import adopt
from lora_pipeline.trainings.late_landings import give_up_request
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.transitions import Moved, move

CLOCK_SKEW = timedelta(minutes=5)
"""How far a provider's clock may be from ours: a list is read this much further back than the request."""
# A look so long after the request ends the search for a held run: no later landing has been seen at any provider.
_LOOK_FOR_HELD = timedelta(days=2)


@dataclass(frozen=True)
class UnknownSubmission:
    """A run whose creation request may have had its effect."""

    run_id: int
    token: str
    file_id: str | None
    sent_at: datetime
    held: bool
    destination: str

    def job_in(self, jobs: Mapping[str, TrainingJob]) -> TrainingJob | None:
        """The job that carries this run's mark, out of jobs indexed by mark."""
        return jobs.get(self.token) or (jobs.get(self.file_id) if self.file_id else None)


@dataclass(frozen=True)
class ReconcileRules:
    """How long to look before holding, and whether to send again by itself (None: never)."""

    grace: timedelta
    resubmit_after: timedelta | None = None


def unknown_submissions(database: Database, provider: str) -> list[UnknownSubmission]:
    """Every run of this provider whose request may have left and whose job id is not known, the longest unlooked-for
    first."""
    with database.read() as session:
        runs = session.scalars(
            select(TrainingRun)
            .where(
                TrainingRun.provider == provider,
                TrainingRun.state.in_([TrainingState.INTENT, TrainingState.HELD]),
                TrainingRun.training_id.is_(None),
                TrainingRun.post_started_at.is_not(None),
            )
            .order_by(TrainingRun.id)
        ).all()
        return [
            UnknownSubmission(
                run.id,
                run.token,
                run.provider_file_id,
                _known(run.post_started_at),
                run.state == TrainingState.HELD,
                run.destination,
            )
            for run in sorted(runs, key=lambda run: or_never(run.last_polled_at))
            if run.state == TrainingState.INTENT or not _looked_for_long(run)
        ]


def _looked_for_long(run: TrainingRun) -> bool:
    """Whether a look came after the last moment at which the run's training may appear: however long nobody looked,
    only a look ends the search."""
    enough = _known(run.post_started_at) + _LOOK_FOR_HELD
    return run.poll_failures == 0 and or_never(run.last_polled_at) > enough


def settle(
    database: Database,
    unknown: list[UnknownSubmission],
    jobs: Mapping[str, TrainingJob],
    *,
    looked_in_vain: Collection[int],
    simulated: bool,
    rules: ReconcileRules,
    looked_at: datetime,
    now: datetime,
) -> list[Moved]:
    """Adopt what was found; hold (or, opted in, send again) what was looked for in vain for long enough.

    `looked_in_vain` are the runs whose absence says something: no walk that was cut short, no bucket that was away.
    `looked_at` is when the walk began: a list that took long to read says nothing about what came later.
    """
    moved = []
    for submission in unknown:
        job = submission.job_in(jobs)
        if job is not None:
            with database.begin() as session:
                change = adopt(session, submission.run_id, job, simulated, now)
            moved.extend([change] if change else [])
        elif submission.run_id in looked_in_vain:
            change = _absent(database, submission, rules, looked_at, now)
            moved.extend([change] if change else [])
    return moved


def _absent(
    database: Database,
    submission: UnknownSubmission,
    rules: ReconcileRules,
    looked_at: datetime,
    now: datetime,
) -> Moved | None:
    age = looked_at - submission.sent_at
    if rules.resubmit_after is not None and age >= rules.resubmit_after:
        return _move_if_unknown(database, submission, TrainingState.PACKED, None, now)
    if age < rules.grace or submission.held:
        return None
    reason = (
        f"the provider was asked to start this training at {submission.sent_at:%Y-%m-%d %H:%M:%S} UTC, its answer "
        f"never arrived, and nothing with its token was found after {int(age.total_seconds() // 60)} minutes. "
        f"Look at the provider's page, then decide: lora-pipeline trainings resolve {submission.run_id} "
        "--resubmit | --adopt TRAINING_ID | --abandon"
    )
    return _move_if_unknown(database, submission, TrainingState.HELD, reason, now)


def _move_if_unknown(
    database: Database, submission: UnknownSubmission, to: TrainingState, reason: str | None, now: datetime
) -> Moved | None:
    with database.begin() as session:
        run = session.get_one(TrainingRun, submission.run_id, with_for_update=True)
        unchanged = (
            run.training_id is None
            and run.post_started_at == submission.sent_at
            and run.state in (TrainingState.INTENT, TrainingState.HELD)
        )
        if not unchanged:
            return None
        if to is TrainingState.PACKED:
            give_up_request(session, run, "reconciliation", now)
            run.post_started_at = run.lease_until = None
        return move(session, run, to, now, reason=reason)


def or_never(moment: datetime | None) -> datetime:
    """For ordering: what was never asked about comes before everything that was."""
    return moment or datetime.min.replace(tzinfo=UTC)


def _known(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment
