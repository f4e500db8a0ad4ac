"""A person's decisions over held and lost trainings, over real HTTP, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, ReviewItem, TrainingRun
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.protocol import (
    JobState,
    ProviderUnavailable,
    TrainingJob,
    TrainingRequest,
)
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.adoption_checks import Expected, objection_to_adopting
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.deciding import (
    Decision,
    DecisionRefused,
    abandon_training,
    adopt_training,
    choices_of,
    resubmit_training,
)
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.late_landings import cancel_second_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import Submission, submit_training
from lora_pipeline_tests.fixtures.pipeline import Clock, run_row
from lora_pipeline_tests.trainings.steps import (
    RULES,
    follow,
    held_run,
    job_of,
    set_run,
    state_of,
    submitted_run,
    unknown_run,
)

ADA = "cli:ada"


def late_landing(database: Database, provider: ReplicateProvider, run_id: int) -> str:
    """The request that nobody waits for any more lands: the provider starts it now. Its job's id."""
    run = run_row(database, run_id)
    with database.read() as session:
        entry = session.query(AuditEntry).filter_by(action="give up request").one()
    url = f"{provider._wire.base}/v1/files/{entry.details['file_id']}"
    inputs = {**run.parameters, "input_images": url}
    return provider.create_training(TrainingRequest(run.trainer_requested, run.destination, inputs)).id


def hand_started(provider: ReplicateProvider, destination: str, images: str) -> str:
    provider.ensure_destination(destination, description="test")
    inputs = {"steps": 10, "trigger_word": "x", "input_images": images}
    return provider.create_training(TrainingRequest(FLUX_TRAINER, destination, inputs)).id


def test_a_held_training_is_sent_again_after_the_list_does_not_show_it(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    decided = resubmit_training(database, provider, run_id, ADA, clock)
    assert (decided.decision, state_of(database, run_id)) == (Decision.RESUBMITTED, "packed")
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.SUBMITTED
    assert simulator.paid()["count"] == 1
    with database.read() as session:
        assert session.query(AuditEntry).filter_by(action="resubmit training", actor=ADA).count() == 1


def test_a_held_training_that_the_list_shows_is_adopted_instead_of_sent_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = unknown_run(database, store, provider, simulator, landed=True)
    set_run(database, run_id, state="held", hold_reason="nobody knows")
    decided = resubmit_training(database, provider, run_id, ADA, clock)
    assert (decided.decision, decided.state) == (Decision.ADOPTED, "submitted")
    assert job_of(database, run_id) == simulator.paid()["trainings"][0]["id"]


def test_nothing_is_sent_again_while_the_list_cannot_prove_its_absence(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    simulator.fault("trainings.list", "answer", status=500, times=3)
    with pytest.raises(ProviderUnavailable):
        resubmit_training(database, provider, run_id, ADA, clock)
    hand_started(provider, "acme/other", "https://store.invalid/images.zip")
    simulator.fault("trainings.list", "malformed_item")
    with pytest.raises(DecisionRefused, match="cannot be read"):
        resubmit_training(database, provider, run_id, ADA, clock)
    assert state_of(database, run_id) == "held"


def test_a_training_that_was_to_be_cancelled_is_not_sent_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    cancel_training(database, provider, run_id, ADA, clock)
    with pytest.raises(DecisionRefused, match="--abandon"):
        resubmit_training(database, provider, run_id, ADA, clock)


def test_the_training_that_a_person_names_is_adopted_by_its_mark(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = unknown_run(database, store, provider, simulator, landed=True)
    job_id = simulator.paid()["trainings"][0]["id"]
    decided = adopt_training(database, provider, run_id, f" {job_id} ", ADA, clock)
    assert (decided.decision, decided.state) == (Decision.ADOPTED, "submitted")
    assert job_of(database, run_id) == job_id


def test_the_training_of_another_run_is_refused(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    other = submitted_run(database, store, provider, "user-1")
    run_id = held_run(database, store, provider, simulator, clock)
    with pytest.raises(DecisionRefused, match=f"belongs to training run {other}"):
        adopt_training(database, provider, run_id, job_of(database, other), ADA, clock)
    stranger = hand_started(
        provider, "acme/other", "https://store.invalid/submissions/" + "a" * 32 + "/x.zip"
    )
    with pytest.raises(DecisionRefused, match="another dataset"):
        adopt_training(database, provider, run_id, stranger, ADA, clock)
    with pytest.raises(DecisionRefused, match="knows nothing"):
        adopt_training(database, provider, run_id, "a" * 26, ADA, clock)
    assert state_of(database, run_id) == "held"


def test_an_abandoned_training_fails_with_its_reason(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    decided = abandon_training(database, provider, run_id, ADA, clock, why="wrong photographs")
    run = run_row(database, run_id)
    assert (decided.state, run.state) == ("failed", "failed")
    assert str(run.error).startswith("abandoned by cli:ada (wrong photographs): the provider was asked")


def test_a_lost_training_is_asked_for_once_more_before_it_is_abandoned(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    set_run(database, run_id, state="lost", hold_reason="the provider no longer knows it")
    with pytest.raises(DecisionRefused, match="again"):
        abandon_training(database, provider, run_id, ADA, clock)
    simulator.fault("trainings.get", "answer", status=404)
    assert abandon_training(database, provider, run_id, ADA, clock).state == "failed"


@pytest.mark.parametrize("state", ["packed", "running", "finalised", "failed"])
def test_a_run_that_needs_no_decision_is_refused_one(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    state: str,
) -> None:
    run_id = submitted_run(database, store, provider)
    set_run(database, run_id, state=state)
    for decide in (resubmit_training, abandon_training):
        with pytest.raises(DecisionRefused, match="needs no decision"):
            decide(database, provider, run_id, ADA, clock)
    assert state_of(database, run_id) == state


def test_the_choices_that_are_named_are_the_ones_that_fit() -> None:
    succeeded_at = Clock()()
    assert choices_of(TrainingRun(state="held", succeeded_at=succeeded_at)) == "--retry | --abandon"
    assert choices_of(TrainingRun(state="held")) == "--resubmit | --adopt TRAINING_ID | --abandon"
    assert choices_of(TrainingRun(state="lost")) == "--abandon"
    assert choices_of(TrainingRun(state="running")) == ""


def test_a_request_that_lands_after_it_was_abandoned_is_cancelled_and_reported(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    abandon_training(database, provider, run_id, ADA, clock)
    follow(database, provider, clock)
    job_id = late_landing(database, provider, run_id)
    follow(database, provider, clock)
    with database.read() as session:
        assert session.query(ReviewItem).one().details["second_job"] == job_id

    assert cancel_second_trainings(database, provider, clock, 10).ended == (job_id,)
    with database.read() as session:
        item = session.query(ReviewItem).one()
    assert item.details["second_job_state"] == "canceled"
    assert "cancelled at the provider" in str(item.resolution)
    assert simulator.paid()["trainings"][0]["status"] == "canceled"
    assert cancel_second_trainings(database, provider, clock, 10).asked == 0


def test_a_second_training_that_ran_to_its_end_stays_for_a_person(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    abandon_training(database, provider, run_id, ADA, clock)
    simulator.end(late_landing(database, provider, run_id))
    follow(database, provider, clock)
    assert len(cancel_second_trainings(database, provider, clock, 10).ended) == 1
    with database.read() as session:
        item = session.query(ReviewItem).one()
    assert (item.details["second_job_state"], item.resolved_at) == ("succeeded", None)
    assert cancel_second_trainings(database, provider, clock, 10).asked == 0


def test_the_first_request_landing_after_the_second_was_sent_is_a_second_training(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    resubmit_training(database, provider, run_id, ADA, clock)
    submit_training(database, store, provider, run_id, RULES)
    wanted, second = job_of(database, run_id), late_landing(database, provider, run_id)
    follow(database, provider, clock)
    assert cancel_second_trainings(database, provider, clock, 10).ended == (second,)
    assert job_of(database, run_id) == wanted
    statuses = {row["id"]: row["status"] for row in simulator.paid()["trainings"]}
    assert statuses == {wanted: "starting", second: "canceled"}


def test_a_request_that_lands_before_it_is_sent_again_is_adopted_and_not_paid_twice(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = held_run(database, store, provider, simulator, clock)
    resubmit_training(database, provider, run_id, ADA, clock)
    landed = late_landing(database, provider, run_id)
    follow(database, provider, clock)
    assert job_of(database, run_id) == landed
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.TAKEN
    assert simulator.paid()["count"] == 1


def test_a_late_landing_after_an_automatic_resubmission_is_found_too(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = unknown_run(database, store, provider, simulator, landed=False)
    clock.advance(minutes=20)
    opted_in = FollowRules(
        timedelta(seconds=40), ReconcileRules(timedelta(hours=1), resubmit_after=timedelta(minutes=10))
    )
    follow_trainings(database, provider, opted_in, clock=clock)
    assert state_of(database, run_id) == "packed"
    submit_training(database, store, provider, run_id, RULES)
    second = late_landing(database, provider, run_id)
    follow(database, provider, clock)
    assert cancel_second_trainings(database, provider, clock, 10).ended == (second,)


EXPECTED = Expected(frozenset({"t" * 32}), FLUX_TRAINER, "acme/user-50c-selfie-lora")
HASH = FLUX_TRAINER.rpartition(":")[2]


@pytest.mark.parametrize(
    ("marks", "trainer", "output", "fits"),
    [
        (("t" * 32,), "other", "mallory/x:" + "0" * 64, True),
        (("u" * 32,), HASH, None, False),
        ((), HASH, None, True),
        ((), HASH.upper(), "acme/user-50c-selfie-lora:" + "1" * 64, True),
        ((), HASH, "acme/another-lora:" + "1" * 64, False),
        ((), HASH, "no version", False),
        ((), "0" * 64, None, False),
        ((), None, None, False),
    ],
)
def test_the_mark_decides_and_without_one_trainer_and_destination_do(
    marks: tuple[str, ...], trainer: str | None, output: str | None, fits: bool
) -> None:
    job = TrainingJob(
        "j" * 26, JobState.SUCCEEDED, "succeeded", trainer_version=trainer, output_version=output
    )
    assert (objection_to_adopting(job, marks, EXPECTED) is None) is fits
