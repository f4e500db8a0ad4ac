"""Administrators: how every model stands against the provider, bulk syncs, and callbacks that fail."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import Field

from lora_pipeline.api.answers import Answer, Request
from lora_pipeline.api.authentication import Administrator
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Shared
from lora_pipeline.callbacks.listing import list_callbacks
from lora_pipeline.callbacks.sending import send_again
from lora_pipeline.versions.bulk_jobs import open_job, read_job, run_job
from lora_pipeline.versions.bulk_sync import BulkOptions
from lora_pipeline.versions.sync_status import ReportOptions, sync_status

router = APIRouter(prefix="/api/admin", tags=["administrators"])


class BulkSyncRequest(Request):
    dry_run: bool = False
    """Only say what would be done."""
    deep: bool = False
    """Ask the provider for every model by itself, and count its versions."""
    filter: Annotated[str, Field(min_length=1, max_length=200)] = "*"
    """Pattern over model ids and user ids, such as `user-*`."""


class JobAnswer(Answer):
    job_id: str
    state: Literal["running", "completed", "failed", "lost"]
    message: str
    options: dict[str, Any]
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    report: dict[str, Any] | None


class CallbackAnswer(Answer):
    """One event for the application."""

    event_id: str
    kind: str
    payload: dict[str, Any]
    state: Literal["owed", "failing", "given up", "delivered"]
    attempts: int
    last_error: str | None
    created_at: datetime
    next_attempt_at: datetime
    delivered_at: datetime | None
    given_up_at: datetime | None


class CallbacksAnswer(Answer):
    callbacks: list[CallbackAnswer]


class SendAgainAnswer(Answer):
    event_id: str
    due: bool


class ListedVersion(Answer):
    id: str
    created_at: datetime | None = Field(alias="created_at")


class UserStatus(Answer):
    """One user's active model."""

    user: str
    email: str | None
    model_key: str
    model_id: str | None
    """The provider's `owner/name`."""
    status: Literal["Up to Date", "Needs Sync", "Error"] | None
    verdict: str
    current_version: str | None
    latest_version: str | None
    needs_sync: bool | None
    updated_at: datetime = Field(alias="updated_at")
    completed_at: datetime | None = Field(alias="completed_at")
    total_versions_on_replicate: int | None
    counted_at: datetime | None
    all_versions: list[ListedVersion]
    detail: str
    error: str | None
    advice: list[str]


class SyncStatusAnswer(Answer):
    total_users: int
    users_needing_sync: int
    errors: int
    up_to_date: int
    models: int
    verdicts: dict[str, int]
    checked_at: datetime
    simulated: bool | None
    requests: int
    hints: list[str]
    users: list[UserStatus]


@router.get("/training/sync-status")
def report(
    _: Administrator,
    services: Shared,
    user: Annotated[str | None, Query(max_length=320, description="One user or model only.")] = None,
    deep: Annotated[bool, Query(description="Count every model's versions: a request each.")] = False,
    remembered: Annotated[bool, Query(description="Ask nobody: tell what was seen last.")] = False,
) -> SyncStatusAnswer:
    """For each user the active completed model: what it serves, what the provider has, and whether it needs a sync."""
    options = ReportOptions(user=user, deep=deep, remembered=remembered)
    with services.provider_calls.place():
        return SyncStatusAnswer.model_validate(sync_status(services.connections, options).as_json())


@router.post("/training/bulk-sync", status_code=HTTPStatus.ACCEPTED)
def bulk_sync(
    wanted: Annotated[BulkSyncRequest, Body(default_factory=BulkSyncRequest)],
    caller: Administrator,
    services: Shared,
) -> JobAnswer:
    """Sync every user's active model. Answers at once with the job's id."""
    connections = services.connections
    options = BulkOptions(apply=not wanted.dry_run, deep=wanted.deep, only=wanted.filter)
    job_id = open_job(connections, options, actor=caller.actor)
    services.jobs.submit(run_job, connections, job_id, options)
    return JobAnswer.model_validate(read_job(connections, job_id))


@router.get("/training/bulk-sync/{job_id}")
def bulk_sync_job(
    job_id: Annotated[str, Path(max_length=32)], _: Administrator, services: Shared
) -> JobAnswer:
    """How a bulk sync stands, and its report once it has ended."""
    return JobAnswer.model_validate(read_job(services.connections, job_id))


@router.get("/callbacks")
def callbacks(
    _: Administrator,
    services: Shared,
    undelivered: Annotated[bool, Query(description="Only those that were not taken.")] = True,
) -> CallbacksAnswer:
    """The newest callbacks to the application: what is owed, tried in vain, or given up, and why."""
    found = list_callbacks(services.connections.database, "undelivered" if undelivered else "all")
    return CallbacksAnswer(callbacks=[CallbackAnswer.model_validate(callback) for callback in found])


@router.post("/callbacks/{event_id}/send-again")
def send_callback_again(
    event_id: Annotated[str, Path(max_length=64)], _: Administrator, services: Shared
) -> SendAgainAnswer:
    """Make a callback due now, also one that was given up; it is sent within some seconds."""
    connections = services.connections
    if not send_again(connections.database, event_id, connections.now()):
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no callback {event_id!r}")
    return SendAgainAnswer(event_id=event_id, due=True)
