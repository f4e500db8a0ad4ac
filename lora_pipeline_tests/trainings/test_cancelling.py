"""Cancelling at every point of a training's life, over real HTTP, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, AuditEntry, ModelVersion, ReviewItem
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.cancelling import Cancel, CancelResult, cancel_training, send_due_cancels
from lora_pipeline.trainings.finalisation import Finalisation, finalise_training
from lora_pipeline.trainings.late_landings import SECOND_TRAINING, cancel_second_trainings
from lora_pipeline.trainings.listing import TrainingNotFound
from lora_pipeline.trainings.submission import Submission, submit_training
from lora_pipeline.trainings.tending import ask_for_cancels
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, model_row, run_row
from lora_pipeline_tests.trainings.steps import (
    FINALISE,
    RULES,
    ago,
    follow,
    job_of,
    set_run,
    state_of,
    submitted_run,
    unknown_run,
)


def cancel(database: Database, provider: ReplicateProvider, run_id: int, clock: Clock) -> CancelResult:
    return cancel_training(database, provider, run_id, "cli:ada", clock)


def quirk(simulator: RunningSimulator, job_id: str, **quirks: Any) -> None:
    simulator.control(f"trainings/{job_id}/quirks", **quirks)


@pytest.mark.parametrize("state", ["running", "packed"])
def test_a_cancel_is_asked_of_the_provider_that_has_the_training_alone(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock, state: str
) -> None:
    job = "job-at-runpod" if state == "running" else None
    run_id = add_packed_run(
        database, store, provider="runpod", state=state, training_id=job, cancel_requested_at=clock()
    )
    done = send_due_cancels(database, provider, clock, 10)
    assert (done.asked, done.ended, done.errors) == (0, (), ())
    assert run_row(database, run_id).state == state


def test_a_second_training_is_ended_at_the_provider_that_has_it_alone(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    """Elsewhere it is unknown, which would pass for its end while it still bills."""
    run_id = add_packed_run(database, store, provider="runpod", state="running", training_id="job-1")
    details = {"run": run_id, "second_job": "job-2"}
    with database.begin() as session:
        session.add(ReviewItem(kind=SECOND_TRAINING, subject="job-2", details=details, created_at=clock()))
    assert cancel_second_trainings(database, provider, clock, 10).asked == 0
    with database.read() as session:
        assert session.query(ReviewItem).one().resolved_at is None


def test_while_observing_a_tick_asks_for_no_cancel(
    connections: Connections, simulator: RunningSimulator, clock: Clock
) -> None:
    """It was wished before, and is the other system's now."""
    connections.settings.observe = True
    database = connections.database
    run_id = add_packed_run(
        database, connections.store, state="running", training_id="job-1", cancel_requested_at=clock()
    )
    before = simulator.requests()
    cancels, seconds = ask_for_cancels(connections, connections.replicate, connections.now())
    assert (cancels.asked, seconds.asked) == (0, 0)
    assert simulator.requests() == before
    assert run_row(database, run_id).state == "running"


def test_a_training_that_was_not_sent_ends_at_once_and_is_never_sent(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = add_packed_run(database, store)
    result = cancel(database, provider, run_id, clock)
    assert result.outcome is Cancel.CANCELED
    assert "nothing was paid" in result.reason
    run = run_row(database, run_id)
    assert (run.state, run.status) == ("canceled", "canceled")
    assert "cli:ada" in str(run.error)
    assert model_row(database).training_status == "canceled"
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.TAKEN
    assert simulator.paid()["count"] == 0
    assert simulator.requests().get("trainings.cancel", 0) == 0


def test_a_running_training_ends_when_the_provider_says_so(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.advance(300)
    follow(database, provider, clock)
    result = cancel(database, provider, run_id, clock)
    assert result.outcome is Cancel.CANCELED
    assert simulator.paid()["trainings"][0]["status"] == "canceled"
    assert state_of(database, run_id) == "canceled"
    again = cancel(database, provider, run_id, clock)
    assert (again.outcome, simulator.requests()["trainings.cancel"]) == (Cancel.CANCELED, 1)
    with database.read() as session:
        assert [entry.actor for entry in session.query(AuditEntry).filter_by(action="cancel training")] == [
            "cli:ada"
        ]


def test_a_cancel_that_the_provider_does_not_carry_out_is_asked_again_until_it_does(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    quirk(simulator, job_of(database, run_id), cancel="ignored")
    assert cancel(database, provider, run_id, clock).outcome is Cancel.REQUESTED
    assert state_of(database, run_id) == "submitted", "it bills until the provider says that it ended"
    assert send_due_cancels(database, provider, clock, 10).ended == ()
    quirk(simulator, job_of(database, run_id), cancel="normal")
    assert send_due_cancels(database, provider, clock, 10).ended == (run_id,)
    assert state_of(database, run_id) == "canceled"
    assert send_due_cancels(database, provider, clock, 10).asked == 0


@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "answer", "status": 500}])
def test_a_cancel_without_an_answer_is_recorded_first_and_sent_by_a_later_tick(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    fault: dict[str, Any],
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.fault("trainings.cancel", **fault)
    result = cancel(database, provider, run_id, clock)
    assert result.outcome is Cancel.UNANSWERED
    assert "bills" in result.reason
    run = run_row(database, run_id)
    assert run.state == "submitted"
    assert run.cancel_requested_at == clock()
    assert send_due_cancels(database, provider, clock, 10).ended == (run_id,)


def test_a_cancel_that_is_always_refused_does_not_keep_others_from_theirs(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    stubborn = submitted_run(database, store, provider, "user-1")
    quirk(simulator, job_of(database, stubborn), cancel="refused")
    other = submitted_run(database, store, provider, "user-2")
    for run_id in (stubborn, other):
        set_run(database, run_id, cancel_requested_at=ago(clock, hours=1), updated_at=ago(clock, hours=1))
    for _ in range(2):
        clock.advance(seconds=120)
        send_due_cancels(database, provider, clock, 1)
    assert (state_of(database, stubborn), state_of(database, other)) == ("submitted", "canceled")


def test_an_outage_ends_the_round_after_one_request(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    for key in ("user-1", "user-2", "user-3"):
        set_run(database, submitted_run(database, store, provider, key), cancel_requested_at=clock())
    simulator.fault("trainings.cancel", "drop", times=9)
    found = send_due_cancels(database, provider, clock, 10)
    assert (found.asked, len(found.errors)) == (1, 1)


def test_a_retrain_that_succeeds_before_its_cancel_is_registered_and_not_served(
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
    retrain = submitted_run(database, store, provider)
    quirk(simulator, job_of(database, retrain), cancel="ignored")
    assert cancel(database, provider, retrain, clock).outcome is Cancel.REQUESTED
    simulator.end(job_of(database, retrain))
    assert send_due_cancels(database, provider, clock, 10).ended == ()
    assert state_of(database, retrain) == "succeeded"

    result = finalise_training(database, store, provider, retrain, FINALISE, clock=clock)
    assert (result.outcome, result.version) == (Finalisation.FINALISED, 2)
    assert result.activated is not None
    assert result.activated.withheld
    assert (model_row(database).replicate_version_id, model_row(database).training_status) == (
        served,
        "completed",
    )
    with database.read() as session:
        assert session.query(Activation).count() == 1
        assert session.query(ModelVersion).count() == 2


def test_a_first_training_that_succeeds_before_its_cancel_shows_cancelled_and_how_to_serve_it(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    set_run(database, run_id, cancel_requested_at=clock())
    simulator.end(job_of(database, run_id))
    follow(database, provider, clock)
    finalise_training(database, store, provider, run_id, FINALISE, clock=clock)
    model = model_row(database)
    assert (model.training_status, model.replicate_version_id) == ("canceled", None)
    assert "lora-pipeline activate user-50c 1" in str(model.failure_reason)


def test_a_cancel_after_the_success_is_too_late(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.end(job_of(database, run_id))
    follow(database, provider, clock)
    result = cancel(database, provider, run_id, clock)
    assert result.outcome is Cancel.TOO_LATE
    assert run_row(database, run_id).cancel_requested_at is None


def test_the_provider_reporting_success_in_the_answer_to_a_cancel_is_believed(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    simulator.end(job_of(database, run_id))
    result = cancel(database, provider, run_id, clock)
    assert (result.outcome, state_of(database, run_id)) == (Cancel.TOO_LATE, "succeeded")


def test_a_training_of_unknown_outcome_is_cancelled_as_soon_as_it_is_found(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = unknown_run(database, store, provider, simulator, landed=True)
    result = cancel(database, provider, run_id, clock)
    assert result.outcome is Cancel.WISHED
    assert f"trainings resolve {run_id} --abandon" in result.reason
    assert state_of(database, run_id) == "intent"
    follow(database, provider, clock)
    assert state_of(database, run_id) == "submitted"
    assert send_due_cancels(database, provider, clock, 10).ended == (run_id,)
    assert simulator.paid()["trainings"][0]["status"] == "canceled"


def test_a_cancelled_run_that_comes_back_to_packed_is_not_sent_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = add_packed_run(database, store)
    set_run(database, run_id, cancel_requested_at=clock())
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.TAKEN
    assert send_due_cancels(database, provider, clock, 10).ended == (run_id,)
    assert simulator.paid()["count"] == 0


def test_an_unknown_run_is_named(database: Database, provider: ReplicateProvider, clock: Clock) -> None:
    with pytest.raises(TrainingNotFound, match="no training run 4711"):
        cancel(database, provider, 4711, clock)


def test_cancelling_while_it_is_being_sent_never_leaves_a_training_that_bills_unnoticed(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    runs = [add_packed_run(database, store, f"user-{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for run_id in runs:
            sent = pool.submit(submit_training, database, store, provider, run_id, RULES)
            asked = pool.submit(cancel, database, provider, run_id, clock)
            sent.result()
            asked.result()
    send_due_cancels(database, provider, clock, 10)
    assert {state_of(database, run_id) for run_id in runs} == {"canceled"}
    assert {row["status"] for row in simulator.paid()["trainings"]} <= {"canceled"}
