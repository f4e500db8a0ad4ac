"""Adoption: storing the provider's job id with the run whose token the job carries.

The creation answer and every later look at the provider end here, so that a training found in the list
and one whose answer arrived are treated alike.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from lora_pipeline.database.tables import AuditEntry, ReviewItem, TrainingRun
from lora_pipeline.identity import IdentityError, parse_job_id
from lora_pipeline.providers.protocol import TrainingJob
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline.trainings.transitions import Moved, move, observe_one

log = logging.getLogger(__name__)

_TOKEN_IN_PATH = re.compile(r"/submissions/([0-9a-f]{32})/")
_FILE_IN_PATH = re.compile(r"/files/([^/?#]+)")
_ADOPTABLE = frozenset({TrainingState.INTENT, TrainingState.HELD, TrainingState.PACKED})


def marks_of(job: TrainingJob) -> tuple[str, ...]:
    """The tokens and file ids that a job carries, in its dataset's address or beside it: what says whose job it is."""
    reference = job.input_reference or ""
    path = reference.partition("?")[0]
    said = [job.mark] if job.mark else []
    return tuple(said + _TOKEN_IN_PATH.findall(path) + _FILE_IN_PATH.findall(path))


def jobs_by_mark(jobs: Iterable[TrainingJob]) -> Mapping[str, TrainingJob]:
    """Index jobs by the marks in their dataset address."""
    return {mark: job for job in jobs for mark in marks_of(job)}


def adopt(
    session: Session, run_id: int, job: TrainingJob, simulated: bool, now: datetime, *, emit: bool = True
) -> Moved | None:
    """Store `job` with its run and move it to `submitted`, then to whatever the job already shows.

    Adopting twice is harmless. A second, different job for one run is money spent twice: it is never
    dropped silently but becomes a review item that names both. Weights that nobody signed (a job without an id) are
    the run's own: they only speak of a second job where the run was given up without one.
    """
    run = session.get_one(TrainingRun, run_id, with_for_update=True)
    unnamed, signed = _unnamed(run_id), bool(job.id)
    job = job if signed else replace(job, id=unnamed)
    # Which job left unsigned weights is never learnt: whatever bears the run's token after that is that job.
    if run.training_id is not None and (run.training_id == unnamed or same_job(run.training_id, job.id)):
        return observe_one(session, run, job, now)
    if run.training_id is not None or TrainingState(run.state) not in _ADOPTABLE:
        if signed or run.training_id is None:
            _report_second_job(session, run, job, now)
        return None
    run.training_id, run.simulated = job.id, simulated
    run.submitted_at = run.post_started_at or now
    run.trainer_returned = job.trainer_version
    run.lease_token = run.lease_until = run.not_before = None
    moved = move(session, run, TrainingState.SUBMITTED, now, emit=emit)
    return observe_one(session, run, job, now) or moved


def _unnamed(run_id: int) -> str:
    """What a job goes by whose worker left its weights and not its id: known by them alone, so nobody can be asked."""
    return f"unnamed-job-of-run-{run_id}"


def same_job(known: str, seen: str) -> bool:
    """Whether two ids are one job's: word for word, or one RunPod UUID under two suffixes."""
    if known == seen:
        return True
    try:
        return parse_job_id(known).base == parse_job_id(seen).base
    except IdentityError:
        return False


def _report_second_job(session: Session, run: TrainingRun, job: TrainingJob, now: datetime) -> None:
    subject = f"run {run.id}: {job.id}"
    known = session.query(ReviewItem).filter_by(kind="second_training", subject=subject).first()
    if known is not None:
        return
    ended = " after it had ended" if TrainingState(run.state) in TERMINAL else ""
    log.error("training run %s has a second job %s beside %s%s", run.id, job.id, run.training_id, ended)
    details = {"run": run.id, "first_job": run.training_id, "second_job": job.id, "state": run.state}
    session.add(ReviewItem(kind="second_training", subject=subject, details=details, created_at=now))
    session.add(
        AuditEntry(at=now, actor="reconciliation", action="second training", subject=subject, details=details)
    )
