"""What must hold at every step boundary, and what must be true once nothing changes any more."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Row, select, text

from lora_pipeline.database.tables import OutboxEvent, ReviewItem, TrainingRun
from lora_pipeline.providers.protocol import JobState
from lora_pipeline.trainings.late_landings import SECOND_TRAINING
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline_tests.proofs.account import Leaves, PaidTraining
from lora_pipeline_tests.proofs.world import GRACE, World

_LOOKED_FOR = (TrainingState.INTENT, TrainingState.HELD)
_IS_SECOND = ReviewItem.kind == SECOND_TRAINING
_WAITING = (TrainingState.HELD, TrainingState.LOST)
_NEXT = "lora-pipeline trainings resolve"
_SILENT = (TrainingState.READY, TrainingState.PACKED, TrainingState.INTENT)
_RANK = {
    TrainingState.SUBMITTED: 1,
    TrainingState.RUNNING: 2,
    TrainingState.SUCCEEDED: 3,
}


_SERVED = text(
    """
    SELECT m.model_key, m.replicate_version_id, m.lora_weights_url,
           v.number, v.provider_version, v.weights_url, v.weights_state, r.file_sha256
    FROM user_models m
    LEFT JOIN activations a ON a.model_id = m.id AND a.active_to IS NULL
    LEFT JOIN model_versions v ON v.id = a.version_id
    LEFT JOIN artifacts r ON r.id = v.artifact_id
    ORDER BY m.id
    """
)


def broken_rules(world: World, *, may_pay_twice: bool = False) -> list[str]:
    """What is wrong right now, in any state that a crash can leave; an empty list is right."""
    with world.database.read() as session:
        runs = session.scalars(select(TrainingRun).order_by(TrainingRun.id)).all()
        outbox = session.execute(text("SELECT event_id, acknowledged_at IS NOT NULL FROM outbox")).all()
        versions = Counter(session.scalars(text("SELECT training_run_id FROM model_versions")))
        reported = {
            int(item.details["run"]) for item in session.scalars(select(ReviewItem).where(_IS_SECOND))
        }
        models = session.execute(_SERVED).all()
    events = {event_id for event_id, _ in outbox}
    wrong: list[str] = []
    for run in runs:
        wrong += _money(world, run, may_pay_twice=may_pay_twice)
        wrong += _reports(run, events)
        # What is reported is cancelled: of a run that was paid once, that would be its only job.
        if run.id in reported and len(_paid(world, run)) < 2:
            wrong.append(f"run {run.id} is said to have a second job")
        finished = run.state == TrainingState.FINALISED
        if versions[run.id] != int(finished):
            wrong.append(f"run {run.id} is {run.state} and has {versions[run.id]} versions")
    for name, count in Counter(model.model_key for model in models).items():
        if count > 1:
            wrong.append(f"{name} has {count} open activations")
    wrong += [problem for model in models for problem in _served(world, model)]
    lost = {event_id for event_id, acknowledged in outbox if acknowledged} - set(world.dagster.events)
    if lost:
        wrong.append(f"acknowledged, and Dagster never stored it: {sorted(lost)}")
    return wrong


def _money(world: World, run: TrainingRun, *, may_pay_twice: bool) -> Iterator[str]:
    paid = _paid(world, run)
    if len(paid) > 1 and not may_pay_twice:
        yield f"run {run.id} was paid {len(paid)} times"
    if paid and not any(job.goes_by(run.training_id) for job in paid):
        if run.training_id is not None and not _unnamed(world, run, paid):
            yield f"run {run.id} follows {run.training_id}, which was never started for it"
        elif (
            run.training_id is None
            and run.state not in _LOOKED_FOR
            and not (may_pay_twice and run.state == TrainingState.PACKED)
        ):
            yield f"run {run.id} is {run.state} and nobody looks for {paid[0].id}, which is paid"
    readable = world.conditions.garbled == 0
    if readable and run.state == TrainingState.HELD and run.training_id is None and run.post_started_at:
        # A page takes time: only what was shown well before the hold was there to be seen.
        long_ago = run.state_changed_at - GRACE
        early = [job for job in paid if (shown := world.provider.shown_from(job)) and shown < long_ago]
        if early:
            yield f"run {run.id} is held as absent although {early[0].id} is listed"


def _paid(world: World, run: TrainingRun) -> list[PaidTraining]:
    marks = [run.token, *([run.provider_file_id] if run.provider_file_id else [])]
    return [job for mark in marks for job in world.provider.account.of(mark)]


def _unnamed(world: World, run: TrainingRun, paid: list[PaidTraining]) -> bool:
    """Whether the run goes by the weights that nobody signed, and such weights were left for it."""
    stands_for = run.training_id == f"unnamed-job-of-run-{run.id}"
    return stands_for and any(job.leaves is Leaves.UNNAMED for job in paid)


def _reports(run: TrainingRun, events: set[str]) -> Iterator[str]:
    wanted = f"lora:{run.id}" if run.state == TrainingState.FINALISED else f"training:{run.id}:{run.state}"
    if run.state in (TrainingState.HELD, TrainingState.LOST):
        wanted += f":{run.state_changed_at:%Y%m%d%H%M%S}"
    if run.state not in _SILENT and wanted not in events:
        yield f"run {run.id} is {run.state} and Dagster is not owed {wanted}"


def _served(world: World, model: Row[Any]) -> Iterator[str]:
    served = (model.replicate_version_id, model.lora_weights_url)
    if model.number is None:
        if any(served):
            yield f"{model.model_key} serves {served[0]} without an activation"
        return
    if served != (model.provider_version, model.weights_url):
        yield f"{model.model_key} serves {served}, its open activation says {model.provider_version}"
    if model.weights_state != "verified" or model.file_sha256 is None:
        yield f"{model.model_key} serves V{model.number}, whose weights are {model.weights_state}"
        return
    archived = world.store.content.get(world.store.key_of(model.weights_url) or "", b"")
    if hashlib.sha256(archived).hexdigest() != model.file_sha256:
        yield f"{model.model_key} serves V{model.number}, whose archive is not there"


def unfinished(world: World) -> list[str]:
    """What is wrong in the end: every run at its true end, or held or lost with a reason and what to do."""
    wrong = []
    with world.database.read() as session:
        for run in session.scalars(select(TrainingRun)):
            if run.state not in (*TERMINAL, *_WAITING):
                wrong.append(f"run {run.id} ended as {run.state}")
            if run.state in _WAITING and _NEXT not in (run.hold_reason or ""):
                wrong.append(f"run {run.id} is {run.state} without a reason and a next command")
            if (
                run.state in TERMINAL
                and run.state != TrainingState.FINALISED
                and not (run.error or run.state == TrainingState.CANCELED)
            ):
                wrong.append(f"run {run.id} is {run.state} without a reason")
            wrong += _ends(world, run)
        events = set(session.scalars(select(OutboxEvent.event_id)))
    missing = events - set(world.dagster.events)
    if missing:
        wrong.append(f"Dagster never got {sorted(missing)}")
    return wrong


def _ends(world: World, run: TrainingRun) -> Iterator[str]:
    """Whether a run ended as its job did: with the weights where there are any."""
    refused = run.state == TrainingState.HELD and run.output_artifact_url is not None
    for job in world.provider.account.of(run.token):
        if run.training_id is None and world.provider.shown_from(job) is not None:
            yield f"run {run.id} is {run.state}, and {job.id} is forgotten"
        elif world.provider.was_worth_it(job):
            # What was canceled and left its weights all the same is a person's to decide: the inventory asks.
            canceled = run.state == TrainingState.CANCELED and job.ends is JobState.CANCELED
            if run.state != TrainingState.FINALISED and not refused and not canceled:
                yield f"run {run.id} is {run.state}, and the weights of {job.id} are forgotten"
        elif run.state in TERMINAL and run.state != job.ends.value:
            yield f"run {run.id} is {run.state}, and {job.id} ended as {job.ends.value} without weights"


STATES = "SELECT id, state, training_id FROM training_runs"


def states_of(world: World) -> list[tuple[int, str, str | None]]:
    """Each run's id, state and the provider's id of its job."""
    with world.database.read() as session:
        return [tuple(row) for row in session.execute(text(STATES))]


class Course:
    """Whether states only ever go forwards, over all processes of one schedule."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[TrainingState, str | None]] = {}

    def step(self, rows: Iterable[tuple[int, str, str | None]]) -> list[str]:
        """What went backwards since the last step; the rows are `STATES`."""
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
