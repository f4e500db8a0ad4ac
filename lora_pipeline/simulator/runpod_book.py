"""The book of RunPod jobs: every attempt was paid for, so none is ever removed. Rows of `runpod_jobs`, nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lora_pipeline.simulator.clock import Instant, SimulatedClock
from lora_pipeline.simulator.runpod_jobs import (
    RETRIED,
    Attempt,
    Job,
    JobQuirks,
    exception_text,
    new_job_id,
    plan_attempt,
)
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import NEVER

BROKEN_DATASET_S = 5.0
"""A dataset that cannot be read ends the job soon after its start."""

INSERT = """
INSERT INTO runpod_jobs (id, endpoint, input, webhook, webhook_open, created_shown, created_life, timeout_s, ttl_s,
    attempt, queued_life, starts_life, ends_life, finishes_life, setup_s, upload_s, steps, outcome, error, archive,
    upload, quirks)
VALUES (:id, :endpoint, :input, :webhook, :webhook IS NOT NULL, :created_shown, :created_life, :timeout_s, :ttl_s,
    1, :queued_life, :starts_life, :ends_life, :finishes_life, :setup_s, :upload_s, :steps, :outcome, :error, :archive,
    :upload, :quirks)
"""
AGAIN = """
UPDATE runpod_jobs SET attempt = attempt + 1, webhook_open = webhook IS NOT NULL, queued_life = :queued_life,
    starts_life = :starts_life, ends_life = :ends_life, finishes_life = :finishes_life, setup_s = :setup_s,
    upload_s = :upload_s, steps = :steps, outcome = :outcome, error = :error, archive = :archive, images = NULL,
    upload = :upload, size = NULL, quirks = :quirks
WHERE id = :id
"""


@dataclass(frozen=True)
class JobOrder:
    """A request for a job that has passed every check."""

    endpoint: str
    input: dict[str, Any]
    webhook: str | None
    timeout_s: float
    ttl_s: float


class JobBook:
    """Creates, finds and ends jobs."""

    def __init__(self, state: State, clock: SimulatedClock) -> None:
        self._sql = state.sql
        self._clock = clock

    def create(self, order: JobOrder, settings: SimulatorSettings, quirks: JobQuirks) -> Job:
        """Take an order: from here on it is paid."""
        identity, now = new_job_id(settings), self._clock.now()
        attempt = plan_attempt(settings, identity, order.input, order.timeout_s, quirks, now.life)
        values = {
            "id": identity,
            **order.__dict__,
            "input": json.dumps(order.input),
            "created_shown": now.shown,
            "created_life": now.life,
        }
        self._sql.execute(INSERT, values | self._row_of(attempt, quirks, settings, now))
        return self.known(identity)

    def retry(self, job: Job, settings: SimulatorSettings) -> Job:
        """Queue a job again under its id, without what made it deviate: paid once more, its output gone."""
        now, quirks = self._clock.now(), JobQuirks()
        attempt = plan_attempt(
            settings, f"{job.id}/{job.attempt}", job.input, job.timeout_s, quirks, now.life
        )
        self._sql.execute(AGAIN, {"id": job.id} | self._row_of(attempt, quirks, settings, now))
        return self.known(job.id)

    def _row_of(
        self, attempt: Attempt, quirks: JobQuirks, settings: SimulatorSettings, now: Instant
    ) -> dict[str, Any]:
        failed = attempt.outcome == "FAILED"
        return {
            **attempt.__dict__,
            "queued_life": now.life,
            "error": exception_text(quirks.error_type, str(quirks.error)) if failed else None,
            "archive": "pending" if settings.fetch_archives else "skipped",
            "quirks": quirks.as_json(),
        }

    def find(self, identity: str) -> Job | None:
        """One job by its id, whether or not the provider still admits to it."""
        row = self._sql.execute("SELECT * FROM runpod_jobs WHERE id = ?", (identity,)).fetchone()
        return Job.from_row(row) if row else None

    def known(self, identity: str) -> Job:
        """One job that is there."""
        found = self.find(identity)
        assert found is not None
        return found

    def to_fetch(self, life: float, limit: int = 50) -> list[Job]:
        """Jobs that have started and whose dataset nobody has looked at yet."""
        return self._jobs(
            "archive = 'pending' AND starts_life <= ? AND starts_life < created_life + ttl_s "
            "ORDER BY starts_life LIMIT ?",
            (life, limit),
        )

    def to_upload(self, life: float, limit: int = 50) -> list[Job]:
        """Jobs that have come to their end and whose object is still to be left."""
        return self._jobs(
            "upload = 'pending' AND archive != 'pending' AND ends_life <= ? AND ends_life < created_life + ttl_s "
            "ORDER BY ends_life LIMIT ?",
            (life, limit),
        )

    def to_tell(self, life: float, limit: int = 200) -> list[Job]:
        """Jobs that have ended and whose webhook is still to be sent."""
        return self._jobs(
            "webhook_open = 1 AND ends_life <= ? AND archive != 'pending' AND upload != 'pending' "
            "AND ends_life < created_life + ttl_s ORDER BY ends_life LIMIT ?",
            (life, limit),
        )

    def _jobs(self, condition: str, values: tuple[float, int]) -> list[Job]:
        rows = self._sql.execute(f"SELECT * FROM runpod_jobs WHERE {condition}", values).fetchall()  # noqa: S608
        return [Job.from_row(row) for row in rows]

    def archive_seen(self, job: Job, images: int, error: str | None) -> None:
        """The worker has opened the dataset: go on, or fail within a few seconds of the start."""
        if error is None:
            change, values = "archive = 'seen', images = ?", [images]
        else:
            self.fail(job, "RuntimeError", error, job.starts_life + BROKEN_DATASET_S)
            change, values = "archive = 'refused', images = ?", [images]
        self._sql.execute(
            f"UPDATE runpod_jobs SET {change} WHERE id = ? AND attempt = ? AND archive = 'pending'",  # noqa: S608
            (*values, job.id, job.attempt),
        )

    def uploaded(self, job: Job, size: int) -> None:
        """The worker has left the object."""
        self._sql.execute(
            "UPDATE runpod_jobs SET upload = 'done', size = ? WHERE id = ? AND attempt = ? AND upload = 'pending'",
            (size, job.id, job.attempt),
        )

    def fail(self, job: Job, kind: str, message: str, life: float) -> None:
        """The worker has raised an exception."""
        self._sql.execute(
            "UPDATE runpod_jobs SET outcome = 'FAILED', error = ?, ends_life = MIN(ends_life, ?), upload = 'skipped' "
            "WHERE id = ? AND attempt = ? AND upload != 'done'",
            (exception_text(kind, message), life, job.id, job.attempt),
        )

    def end(self, job: Job, outcome: str, error: str | None = None) -> bool:
        """End a job that has not ended now; False where it had (then nothing changes)."""
        now = self._clock.now().life
        if job.has_ended(now):
            return False
        uploads = outcome == "COMPLETED" and job.quirks.upload != "skipped"
        starts = min(job.starts_life, now) if outcome != "CANCELLED" or job.starts_life <= now else NEVER
        self._sql.execute(
            "UPDATE runpod_jobs SET outcome = ?, error = ?, starts_life = ?, ends_life = ?, upload = ?, "
            "archive = CASE archive WHEN 'pending' THEN 'skipped' ELSE archive END WHERE id = ?",
            (outcome, error, starts, now, "pending" if uploads else "skipped", job.id),
        )
        return True

    def set_quirks(self, job: Job, quirks: JobQuirks, settings: SimulatorSettings) -> None:
        """Make a job deviate. One that is still open is planned anew from the moment it was queued."""
        self._sql.execute("UPDATE runpod_jobs SET quirks = ? WHERE id = ?", (quirks.as_json(), job.id))
        if job.has_ended(self._clock.now().life):
            return
        seed = job.id if job.attempt == 1 else f"{job.id}/{job.attempt - 1}"
        attempt = plan_attempt(settings, seed, job.input, job.timeout_s, quirks, job.queued_life)
        error = exception_text(quirks.error_type, quirks.error) if quirks.error else None
        self._sql.execute(
            "UPDATE runpod_jobs SET starts_life = :starts_life, ends_life = :ends_life, "
            "finishes_life = :finishes_life, outcome = :outcome, error = :error, upload = :upload WHERE id = :id",
            {**attempt.__dict__, "error": error, "id": job.id},
        )

    def close_webhook(self, job: Job) -> None:
        """Its event has been queued, or lost on purpose."""
        self._sql.execute("UPDATE runpod_jobs SET webhook_open = 0 WHERE id = ?", (job.id,))

    def all(self) -> list[Job]:
        """Every job ever created, oldest first."""
        rows = self._sql.execute("SELECT * FROM runpod_jobs ORDER BY seq").fetchall()
        return [Job.from_row(row) for row in rows]

    def counts(self, endpoint: str, retention_s: float) -> Counter[str]:
        """How many jobs of an endpoint that it still knows stand where, and `retried` ones."""
        life = self._clock.now().life
        known = [
            job for job in self.all() if job.endpoint == endpoint and not job.is_forgotten(life, retention_s)
        ]
        found = Counter(job.status(life) for job in known)
        found["retried"] = sum(job.attempt > 1 for job in known)
        return found

    def may_retry(self, job: Job) -> bool:
        """Whether `/retry` takes this job."""
        return job.status(self._clock.now().life) in RETRIED
