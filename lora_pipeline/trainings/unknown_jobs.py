"""Webhooks about RunPod jobs that no training run has under that id: matched by what the ids share, or by our token.

RunPod gives a job's id back with a suffix that its creation answer may lack, and a webhook can arrive before that
answer, or instead of it. The delivery is kept; the job, asked about, says whose it is. Nothing is believed that
the provider does not say itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, WebhookDelivery
from lora_pipeline.identity import IdentityError, parse_job_id
from lora_pipeline.providers.protocol import (
    LeavesWeightsInBucket,
    NotFound,
    ProviderError,
    TrainingJob,
    TrainingProvider,
)
from lora_pipeline.trainings.adoption import adopt, marks_of
from lora_pipeline.trainings.lifecycle import FOLLOWED, TrainingState
from lora_pipeline.trainings.looking import judged_by_object
from lora_pipeline.trainings.transitions import Moved

_READ_AT_ONCE = 1_000
_UUID = 36


@dataclass(frozen=True)
class AdoptedFromHints:
    """What asking about unknown jobs led to."""

    asked: int = 0
    errors: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class _Waiting:
    """A submission of unknown outcome."""

    run_id: int
    token: str
    destination: str


def match_by_base(database: Database, provider: str) -> int:
    """Give waiting deliveries the id under which an open run has the same job; how many were matched."""
    with database.begin() as session:
        deliveries = session.scalars(_without_run(provider)).all()
        bases = {delivery.id: _base(delivery.job_id) for delivery in deliveries}
        if not any(bases.values()):
            return 0
        base = func.lower(func.substr(TrainingRun.training_id, 1, _UUID))
        rows = session.execute(
            select(base, TrainingRun.training_id).where(
                TrainingRun.provider == provider,
                TrainingRun.state.in_(FOLLOWED),
                base.in_({one for one in bases.values() if one}),
            )
        )
        known = {found: job_id for found, job_id in rows}  # noqa: C416 - a Row is no pair to the type checker
        matched = 0
        for delivery in deliveries:
            job_id = known.get(bases[delivery.id])
            if job_id is not None:
                delivery.job_id = job_id
                matched += 1
        return matched


def adopt_from_hints(
    database: Database,
    provider: TrainingProvider,
    clock: Callable[[], datetime],
    limit: int,
    *,
    deadline: datetime | None = None,
) -> AdoptedFromHints:
    """Ask the provider about unknown jobs while a submission's outcome is unknown, and adopt those that carry its token.

    At most `limit` requests, none after `deadline`, and none after the first that went wrong.
    """
    with database.read() as session:
        waiting = _waiting_runs(session, provider.name)
        jobs = list(dict.fromkeys(one.job_id for one in session.scalars(_without_run(provider.name))))
    asked, errors, moved = 0, list[str](), list[Moved]()
    for job_id in jobs[:limit] if waiting else ():
        if deadline is not None and clock() >= deadline:
            break
        asked += 1
        try:
            run, job = _run_of(provider, job_id, waiting)
        except NotFound:
            continue
        except ProviderError as error:
            errors.append(f"unknown job {job_id}: {error}")
            break
        if run is not None:
            with database.begin() as session:
                change = adopt(session, run.run_id, job, provider.simulated, clock())
            moved.extend([change] if change else [])
    return AdoptedFromHints(asked, tuple(errors), tuple(moved))


def _without_run(provider: str) -> Select[WebhookDelivery]:
    has_run = exists().where(
        TrainingRun.provider == WebhookDelivery.provider, TrainingRun.training_id == WebhookDelivery.job_id
    )
    return (
        select(WebhookDelivery)
        .where(WebhookDelivery.provider == provider, WebhookDelivery.handled_at.is_(None), ~has_run)
        .order_by(WebhookDelivery.id.desc())
        .limit(_READ_AT_ONCE)
    )


def _run_of(
    provider: TrainingProvider, job_id: str, waiting: Mapping[str, _Waiting]
) -> tuple[_Waiting | None, TrainingJob]:
    """The job as it stands, and the waiting run whose token it carries."""
    job = replace(provider.get_training(job_id), id=job_id)
    run = next((waiting[mark] for mark in marks_of(job) if mark in waiting), None)
    if run is not None and isinstance(provider, LeavesWeightsInBucket):
        job = judged_by_object(provider, job, run.token, run.destination)
    return run, job


def _waiting_runs(session: Session, provider: str) -> dict[str, _Waiting]:
    """By token, every submission whose request may have left and whose job is not known."""
    rows = session.execute(
        select(TrainingRun.id, TrainingRun.token, TrainingRun.destination).where(
            TrainingRun.provider == provider,
            TrainingRun.state.in_([TrainingState.INTENT, TrainingState.HELD]),
            TrainingRun.training_id.is_(None),
            TrainingRun.post_started_at.is_not(None),
        )
    )
    return {token: _Waiting(run_id, token, destination) for run_id, token, destination in rows}


def _base(job_id: str) -> str | None:
    try:
        return parse_job_id(job_id).base
    except IdentityError:
        return None
