"""Requests that were given up and may still land: a second job for one run is found, reported and cancelled.

Sending a training again, or abandoning one whose outcome was never known, is a bet that the first request
never lands. The bet is written down, the list is watched for its mark for as long as late landings are
thought possible, and a job that nobody waits for is not left to bill.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, ReviewItem, TrainingRun
from lora_pipeline.providers.protocol import (
    JobState,
    LeavesWeightsInBucket,
    NotFound,
    ProviderError,
    ProviderUnavailable,
    TrainingJob,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.trainings.adoption import adopt, marks_of, same_job
from lora_pipeline.trainings.transitions import Moved

log = logging.getLogger(__name__)

SECOND_TRAINING = "second_training"
"""The kind of review item that adoption writes for a second job."""

GIVEN_UP = "give up request"
# Landings later than this have not been seen at any provider.
_WATCHED_FOR = timedelta(days=2)
_STILL_BILLS = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN})


@dataclass(frozen=True)
class GivenUp:
    """One creation request whose outcome was never known and that nobody waits for any more."""

    run_id: int
    token: str
    destination: str
    file_id: str | None
    """The file that the request named, where one was handed to the provider."""

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.token, self.file_id) if self.file_id else (self.token,)


@dataclass(frozen=True)
class SecondTrainings:
    """What one tick did about second jobs."""

    asked: int = 0
    ended: tuple[str, ...] = ()
    """Ids of second jobs that have ended, one way or the other."""
    errors: tuple[str, ...] = ()


def give_up_request(session: Session, run: TrainingRun, actor: str, now: datetime) -> None:
    """Write down, in the transaction that gives it up, that the run's request may still land.

    The file's id is kept here, because sending again replaces it in the run.
    """
    if run.post_started_at is None:
        return
    details = {"run": run.id, "sent_at": run.post_started_at.isoformat(), "file_id": run.provider_file_id}
    session.add(AuditEntry(at=now, actor=actor, action=GIVEN_UP, subject=f"run {run.id}", details=details))


def given_up_requests(database: Database, provider: str, now: datetime) -> list[GivenUp]:
    """Every request that was given up and may still land."""
    with database.read() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.at > now - _WATCHED_FOR, AuditEntry.action == GIVEN_UP)
        ).all()
        if not entries:
            return []
        run_ids = {int(entry.details["run"]) for entry in entries}
        rows = session.execute(
            select(TrainingRun.id, TrainingRun.token, TrainingRun.destination).where(
                TrainingRun.id.in_(run_ids), TrainingRun.provider == provider
            )
        )
        known = {run_id: (token, destination) for run_id, token, destination in rows}
    return [
        GivenUp(run_id, *known[run_id], entry.details.get("file_id"))
        for entry in entries
        if (run_id := int(entry.details["run"])) in known
    ]


def report_late_landings(
    database: Database,
    given_up: list[GivenUp],
    jobs: Iterable[TrainingJob],
    simulated: bool,
    now: datetime,
) -> list[Moved]:
    """Look for given-up requests among the jobs that a tick has seen.

    One whose run waits to be sent again is adopted, which spares the second payment; any other becomes the
    review item of a second training.
    """
    run_of = {mark: item.run_id for item in given_up for mark in item.marks}
    moved = []
    for job in jobs if run_of else ():
        run_id = next((run_of[mark] for mark in marks_of(job) if mark in run_of), None)
        if run_id is None:
            continue
        with database.begin() as session:
            change = adopt(session, run_id, job, simulated, now)
        moved.extend([change] if change else [])
    return moved


def cancel_second_trainings(
    database: Database,
    provider: TrainingProvider,
    clock: Callable[[], datetime],
    limit: int,
    *,
    deadline: datetime | None = None,
) -> SecondTrainings:
    """Ask the provider to end second jobs that still bill, and write into the review item what became of them.

    One that was cancelled is settled; one that ran to its end was paid for twice and stays for a person.
    """
    asked, ended, errors = 0, list[str](), list[str]()
    for item_id, job_id, token, destination in _open_seconds(database, provider.name, clock())[:limit]:
        if deadline is not None and clock() >= deadline:
            break
        asked += 1
        try:
            state = _end(provider, job_id, token, destination)
        except ProviderError as error:
            errors.append(f"cancel of second training {job_id}: {error}")
            _note(database, item_id, clock(), trouble=str(error))
            if isinstance(error, ProviderUnavailable | Unauthenticated):
                break
            continue
        _note(database, item_id, clock(), state=state)
        if state not in _STILL_BILLS:
            ended.append(job_id)
    return SecondTrainings(asked, tuple(ended), tuple(errors))


def _end(provider: TrainingProvider, job_id: str, token: str, destination: str) -> JobState:
    """Ask for the end of a second job; its state then.

    One that is forgotten and left its weights in our bucket ran to its end, and was paid for.
    """
    try:
        return provider.cancel_training(job_id).state
    except NotFound:
        if not isinstance(provider, LeavesWeightsInBucket):
            return JobState.ABORTED
    left = provider.find_training(token, destination)
    its_own = left is not None and (not left.id or same_job(left.id, job_id))
    return JobState.SUCCEEDED if its_own else JobState.ABORTED


def _open_seconds(database: Database, provider: str, now: datetime) -> list[tuple[int, str, str, str]]:
    """Review items whose second job has not been seen to end, the longest unasked first: item, job, token and
    destination."""
    with database.read() as session:
        items = session.scalars(
            select(ReviewItem).where(
                ReviewItem.kind == SECOND_TRAINING,
                ReviewItem.resolved_at.is_(None),
                ReviewItem.created_at > now - _WATCHED_FOR,
            )
        ).all()
        run_ids = {int(item.details["run"]) for item in items}
        rows = session.execute(
            select(TrainingRun.id, TrainingRun.token, TrainingRun.destination).where(
                TrainingRun.id.in_(run_ids), TrainingRun.provider == provider
            )
        )
        ours = {run_id: (token, destination) for run_id, token, destination in rows}
    waiting = [
        item for item in items if item.details["run"] in ours and not item.details.get("second_job_ended")
    ]
    waiting.sort(key=lambda item: (str(item.details.get("cancel_asked_at", "")), item.id))
    return [(item.id, str(item.details["second_job"]), *ours[int(item.details["run"])]) for item in waiting]


def _note(
    database: Database,
    item_id: int,
    now: datetime,
    *,
    state: JobState | None = None,
    trouble: str | None = None,
) -> None:
    with database.begin() as session:
        item = session.get_one(ReviewItem, item_id, with_for_update=True)
        details = {**item.details, "cancel_asked_at": now.isoformat(), "cancel_trouble": trouble}
        if state is not None:
            details |= {"second_job_state": state.value, "second_job_ended": state not in _STILL_BILLS}
        item.details = details
        if state in (JobState.CANCELED, JobState.ABORTED) and item.resolved_at is None:
            item.resolved_at = now
            item.resolution = "the second job was cancelled at the provider; it billed until then"
