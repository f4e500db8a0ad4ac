"""A bulk sync that somebody asked for and does not wait for: its job's row, from the start to the report."""

from __future__ import annotations

import logging
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import BackgroundJob
from lora_pipeline.providers.secrets import scrubbed
from lora_pipeline.versions.bulk_sync import AnotherAtWork, BulkOptions, BulkReport, bulk_sync

log = logging.getLogger(__name__)

KIND = "bulk sync"
_SIGN_OF_LIFE_S = 3.0
"""How often the row tells how far it has come."""
DEAD_AFTER = timedelta(minutes=2)
"""A running job that has shown no sign of life for so long belonged to a process that died."""
_RESULTS_KEPT = 500


class JobNotFound(LookupError):
    """There is no such job."""


def open_job(connections: Connections, options: BulkOptions, *, actor: str) -> str:
    """Make the row of a new job; its id. Raises AnotherAtWork naming the one that is running."""
    now = connections.now()
    with connections.database.begin() as session:
        running = session.scalars(
            select(BackgroundJob.id).where(
                BackgroundJob.kind == KIND,
                BackgroundJob.state == "running",
                BackgroundJob.seen_at > now - DEAD_AFTER,
            )
        ).first()
        if running is not None:
            raise AnotherAtWork(
                f"bulk sync {running} is running already. Follow that one, or ask again after it"
            )
        job = BackgroundJob(
            id=uuid.uuid4().hex,
            kind=KIND,
            options={"apply": options.apply, "deep": options.deep, "filter": options.only},
            actor=actor,
            state="running",
            message="starting",
            started_at=now,
            seen_at=now,
        )
        session.add(job)
        return job.id


def run_job(connections: Connections, job_id: str, options: BulkOptions) -> None:
    """Carry the job out and keep its row up to date. Never raises: what went wrong stands in the row."""

    def say(text: str) -> None:
        latest[0] = text

    latest = ["starting"]
    with ThreadPoolExecutor(1, thread_name_prefix="bulk sync") as pool:
        work = pool.submit(bulk_sync, connections, options, actor=_actor(connections, job_id), say=say)
        while True:
            try:
                work.exception(_SIGN_OF_LIFE_S)
                break
            except StillWorking:
                _write(connections, job_id, message=latest[0])
    _write(connections, job_id, **_ending(work), ended_at=connections.now())


def read_job(connections: Connections, job_id: str) -> dict[str, Any]:
    """How a job stands, as JSON. Raises JobNotFound."""
    with connections.database.read() as session:
        job = session.get(BackgroundJob, job_id)
    if job is None:
        raise JobNotFound(f"there is no job {job_id!r}")
    dead = job.state == "running" and connections.now() - job.seen_at > DEAD_AFTER
    return {
        "job_id": job.id,
        "state": "lost" if dead else job.state,
        "message": "its process died; what it did is whole. Ask for another" if dead else job.message,
        "options": job.options,
        "started_at": job.started_at,
        "seen_at": job.seen_at,
        "ended_at": job.ended_at,
        "report": job.report,
    }


def _ending(work: Future[BulkReport]) -> dict[str, Any]:
    error = work.exception()
    if error is not None:
        log.error("bulk sync failed: %s", error, exc_info=error)
        return {"state": "failed", "message": scrubbed(str(error))}
    report = work.result()
    found = report.as_json()
    results = found["results"]
    found["results"] = results[:_RESULTS_KEPT]
    found["resultsLeftOff"] = max(0, len(results) - _RESULTS_KEPT)
    return {"state": "completed", "message": report.summary, "report": found}


def _actor(connections: Connections, job_id: str) -> str:
    with connections.database.read() as session:
        return session.get_one(BackgroundJob, job_id).actor


def _write(connections: Connections, job_id: str, **values: str | datetime | dict[str, Any] | None) -> None:
    with connections.database.begin() as session:
        job = session.get_one(BackgroundJob, job_id)
        for name, value in values.items():
            setattr(job, name, value)
        job.seen_at = connections.now()
