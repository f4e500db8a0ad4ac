"""Trying again what ended badly, over real HTTP, on both databases."""

from __future__ import annotations

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, Image, ImageSetMember, TrainingRun
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.finalisation import MAX_ATTEMPTS, Finalisation, finalise_training
from lora_pipeline.trainings.intents import TrainingRefused
from lora_pipeline.trainings.retrying import Retried, retry_training
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, model_row, run_row
from lora_pipeline_tests.trainings.steps import (
    FINALISE,
    follow,
    held_run,
    job_of,
    set_run,
    state_of,
    submitted_run,
)


def retry(database: Database, provider: ReplicateProvider, run_id: int, clock: Clock) -> Retried:
    return retry_training(database, provider, run_id, "cli:ada", clock, trainer=FLUX_TRAINER, owner=None)


@pytest.mark.parametrize("outcome", ["failed", "aborted", "canceled"])
def test_a_training_that_ended_badly_gets_a_new_attempt_with_its_own_token(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    outcome: str,
) -> None:
    run_id = submitted_run(database, store, provider)
    set_run(database, run_id, parameters={"steps": 700, "lora_rank": 8, "trigger_word": "user50c"})
    simulator.end(job_of(database, run_id), outcome)
    follow(database, provider, clock)

    retried = retry(database, provider, run_id, clock)
    assert retried.new_attempt
    before, after = run_row(database, run_id), run_row(database, retried.run_id)
    assert (before.state, after.state) == (outcome, "ready")
    assert (before.attempt, after.attempt) == (1, 2)
    assert before.token != after.token
    assert after.image_set_id == before.image_set_id
    assert (after.parameters["steps"], after.parameters["lora_rank"]) == (700, 8)
    assert after.asked_by == "cli:ada"


@pytest.mark.parametrize(("position", "refused"), [(0, True), (None, False)])
def test_what_was_trained_on_photographs_that_are_deleted_by_now_is_not_tried_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    clock: Clock,
    position: int | None,
    refused: bool,
) -> None:
    """One that was left out is not missed."""
    run_id = add_packed_run(database, store, state="failed")
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id)
        image = Image(
            user_id=run.user_id,
            sha256="0" * 64,
            object_key="users/x/originals/0",
            size=1,
            findings=[],
            created_at=clock(),
            deleted_at=clock(),
        )
        session.add(image)
        session.flush()
        session.add(
            ImageSetMember(
                image_set_id=run.image_set_id,
                image_id=image.id,
                source_name="a.jpg",
                position=position,
                verdict="included" if refused else "excluded",
                findings=[],
                created_at=clock(),
            )
        )
    if refused:
        with pytest.raises(TrainingRefused, match="were deleted on"):
            retry(database, provider, run_id, clock)
    else:
        assert retry(database, provider, run_id, clock).new_attempt


def test_what_stands_in_for_a_retry_is_of_the_same_photographs(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    failed = add_packed_run(database, store, state="failed")
    under_way = add_packed_run(database, store, state="running")
    with pytest.raises(TrainingRefused, match=f"already has training {under_way}"):
        retry(database, provider, failed, clock)


def test_retrying_twice_opens_one_attempt(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.end(job_of(database, run_id), "failed")
    follow(database, provider, clock)
    first, second = (retry(database, provider, run_id, clock) for _ in range(2))
    assert (first.run_id, second.new_attempt) == (second.run_id, False)


def test_a_retry_leaves_the_served_version_alone(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    first = submitted_run(database, store, provider)
    simulator.end(job_of(database, first))
    follow(database, provider, clock)
    finalise_training(database, store, provider, first, FINALISE, clock=clock)
    served = model_row(database).replicate_version_id
    second = submitted_run(database, store, provider)
    cancel_training(database, provider, second, "cli:ada", clock)
    retry(database, provider, second, clock)
    model = model_row(database)
    assert (model.replicate_version_id, model.training_status) == (served, "completed")


def test_refused_weights_are_tried_again_without_a_second_training(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.end(job_of(database, run_id))
    follow(database, provider, clock)
    simulator.fault("weights.download", "cut_body", times=MAX_ATTEMPTS)
    for _ in range(MAX_ATTEMPTS):
        clock.advance(seconds=120)
        finalise_training(database, store, provider, run_id, FINALISE, clock=clock)
    set_run(database, run_id, state="held", hold_reason="its weights were not accepted", finalise_attempts=5)

    retried = retry(database, provider, run_id, clock)
    assert (retried.run_id, retried.new_attempt) == (run_id, False)
    run = run_row(database, run_id)
    assert (run.state, run.finalise_attempts, run.hold_reason) == ("succeeded", 0, None)
    with database.read() as session:
        assert session.query(AuditEntry).filter_by(action="retry weights").one().actor == "cli:ada"
    result = finalise_training(database, store, provider, run_id, FINALISE, clock=clock)
    assert result.outcome is Finalisation.FINALISED
    assert simulator.paid()["count"] == 1


def test_what_needs_another_decision_is_not_retried(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    held = held_run(database, store, provider, simulator, clock)
    with pytest.raises(TrainingRefused, match=f"trainings resolve {held}"):
        retry(database, provider, held, clock)
    assert state_of(database, held) == "held"


@pytest.mark.parametrize(
    ("state", "hint"),
    [("running", "trainings cancel"), ("finalised", "lora-pipeline train"), ("lost", "trainings resolve")],
)
def test_a_refusal_says_what_to_do_instead(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    state: str,
    hint: str,
) -> None:
    run_id = submitted_run(database, store, provider)
    set_run(database, run_id, state=state)
    with pytest.raises(TrainingRefused, match=hint):
        retry(database, provider, run_id, clock)
