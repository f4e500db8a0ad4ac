"""What must hold at every step boundary, and what must be true once nothing changes any more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    ModelVersion,
    OutboxEvent,
    TrainingRun,
    UserModel,
)
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline_tests.proofs.world import GRACE, World

_LOOKED_FOR = (TrainingState.INTENT, TrainingState.HELD)
_SILENT = (TrainingState.READY, TrainingState.PACKED, TrainingState.INTENT)
_RANK = {
    TrainingState.SUBMITTED: 1,
    TrainingState.RUNNING: 2,
    TrainingState.SUCCEEDED: 3,
}


def broken_rules(world: World, *, may_pay_twice: bool = False) -> list[str]:
    """What is wrong right now, in any state that a crash can leave; an empty list is right."""
    with world.database.read() as session:
        runs = session.scalars(select(TrainingRun).order_by(TrainingRun.id)).all()
        events = set(session.scalars(select(OutboxEvent.event_id)))
        wrong = [
            problem
            for run in runs
            for problem in (
                *_money(world, run, may_pay_twice=may_pay_twice),
                *_reports(run, events),
                *_version(session, run),
            )
        ]
        for model in session.scalars(select(UserModel)):
            wrong += _served(world, session, model)
        acknowledged = set(
            session.scalars(select(OutboxEvent.event_id).where(OutboxEvent.acknowledged_at.is_not(None)))
        )
    lost = acknowledged - set(world.dagster.events)
    if lost:
        wrong.append(f"acknowledged, and Dagster never stored it: {sorted(lost)}")
    return wrong


def _money(world: World, run: TrainingRun, *, may_pay_twice: bool) -> Iterator[str]:
    marks = [run.token, *([run.provider_file_id] if run.provider_file_id else [])]
    paid = [job for mark in marks for job in world.provider.account.of(mark)]
    if len(paid) > 1 and not may_pay_twice:
        yield f"run {run.id} was paid {len(paid)} times"
    if paid and run.training_id not in {job.id for job in paid}:
        if run.training_id is not None:
            yield f"run {run.id} follows {run.training_id}, which was never started for it"
        elif run.state not in _LOOKED_FOR and not (may_pay_twice and run.state == TrainingState.PACKED):
            yield f"run {run.id} is {run.state} and nobody looks for {paid[0].id}, which is paid"
    if run.state == TrainingState.HELD and run.training_id is None and run.post_started_at:
        shown = [job for job in paid if job in world.provider.listed(run.state_changed_at)]
        # A page takes time: only what was listed well before the hold was there to be seen.
        early = [
            job for job in shown if (run.state_changed_at - job.takes_effect) > world.provider.lag + GRACE
        ]
        if early:
            yield f"run {run.id} is held as absent although {early[0].id} is listed"


def _reports(run: TrainingRun, events: set[str]) -> Iterator[str]:
    wanted = f"lora:{run.id}" if run.state == TrainingState.FINALISED else f"training:{run.id}:{run.state}"
    if run.state not in _SILENT and wanted not in events:
        yield f"run {run.id} is {run.state} and Dagster is not owed {wanted}"


def _version(session: Session, run: TrainingRun) -> Iterator[str]:
    versions = session.scalars(select(ModelVersion).where(ModelVersion.training_run_id == run.id)).all()
    finished = run.state == TrainingState.FINALISED
    if len(versions) != int(finished):
        yield f"run {run.id} is {run.state} and has {len(versions)} versions"


def _served(world: World, session: Session, model: UserModel) -> Iterator[str]:
    opened = session.scalars(
        select(Activation).where(Activation.model_id == model.id, Activation.active_to.is_(None))
    ).all()
    if not opened:
        if model.replicate_version_id or model.lora_weights_url:
            yield f"{model.model_key} serves {model.replicate_version_id} without an activation"
        return
    if len(opened) > 1:
        yield f"{model.model_key} has {len(opened)} open activations"
    version = session.get_one(ModelVersion, opened[0].version_id)
    served = (model.replicate_version_id, model.lora_weights_url)
    if served != (version.provider_version, version.weights_url):
        yield f"{model.model_key} serves {served}, its open activation says {version.provider_version}"
    if version.weights_state != "verified" or version.artifact_id is None:
        yield f"{model.model_key} serves V{version.number}, whose weights are {version.weights_state}"
        return
    artifact = session.get_one(Artifact, version.artifact_id)
    archived = world.store.content.get(world.store.key_of(version.weights_url or "") or "", b"")
    if hashlib.sha256(archived).hexdigest() != artifact.file_sha256:
        yield f"{model.model_key} serves V{version.number}, whose archive is not there"


def unfinished(world: World) -> list[str]:
    """What is wrong in the end: every run finalised, failed for a reason, or held with one."""
    wrong = []
    with world.database.read() as session:
        for run in session.scalars(select(TrainingRun)):
            said = run.state in TERMINAL or run.state == TrainingState.HELD
            if not said:
                wrong.append(f"run {run.id} ended as {run.state}")
            if run.state == TrainingState.HELD and not run.hold_reason:
                wrong.append(f"run {run.id} is held without a reason")
            if (
                run.state in TERMINAL
                and run.state != TrainingState.FINALISED
                and not (run.error or run.state == TrainingState.CANCELED)
            ):
                wrong.append(f"run {run.id} is {run.state} without a reason")
            known = world.provider.account.of(run.token)
            if known and run.training_id is None:
                wrong.append(f"run {run.id} is {run.state}, and {known[0].id} is forgotten")
        events = set(session.scalars(select(OutboxEvent.event_id)))
    missing = events - set(world.dagster.events)
    if missing:
        wrong.append(f"Dagster never got {sorted(missing)}")
    return wrong


class Course:
    """Whether states only ever go forwards, over all processes of one schedule."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[TrainingState, str | None]] = {}

    def step(self, world: World) -> list[str]:
        with world.database.read() as session:
            rows = session.execute(text("SELECT id, state, training_id FROM training_runs")).all()
        wrong = []
        for run_id, state_word, job_id in rows:
            state = TrainingState(state_word)
            before, job_before = self._seen.get(run_id, (state, job_id))
            backwards = _RANK.get(state, 9) < _RANK.get(before, 0)
            if (before in TERMINAL and state != before) or backwards:
                wrong.append(f"run {run_id} went from {before} to {state}")
            if job_before is not None and job_id != job_before:
                wrong.append(f"run {run_id} followed {job_before} and now {job_id}")
            self._seen[run_id] = (state, job_id)
        return wrong
