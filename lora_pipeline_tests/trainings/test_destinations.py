"""The model at the provider that a training goes into, over real HTTP on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import UserModel
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.protocol import Unauthenticated
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.submission import Submission, submit_training
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, run_row
from lora_pipeline_tests.trainings.steps import RULES, follow, job_of

DESTINATION = "acme/user-50c-selfie-lora"
_CREATIONS = ("models.create", "trainings.create")


def test_it_is_made_before_the_first_training_and_not_asked_about_at_the_next(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    first = add_packed_run(database, store)
    submit_training(database, store, provider, first, RULES, clock=clock)
    assert _creations(simulator) == {"models.create": 1, "trainings.create": 1}
    simulator.end(job_of(database, first), "failed")
    follow(database, provider, clock)

    submit_training(database, store, provider, add_packed_run(database, store), RULES, clock=clock)
    assert _creations(simulator) == {"models.create": 1, "trainings.create": 2}
    assert simulator.paid()["count"] == 2


def test_one_that_was_deleted_at_the_provider_is_made_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(database, store)
    with database.begin() as session:
        session.execute(update(UserModel).values(replicate_model_id=DESTINATION))

    submitted = submit_training(database, store, provider, run, RULES, clock=clock)
    assert submitted.outcome is Submission.SUBMITTED
    assert _creations(simulator) == {"models.create": 1, "trainings.create": 2}
    assert simulator.paid()["count"] == 1


@pytest.mark.parametrize("status", [500, 429, 402])
def test_one_that_cannot_be_made_now_starts_nothing_and_the_training_is_sent_later(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    status: int,
) -> None:
    run = add_packed_run(sqlite_database, store)
    simulator.fault("models.create", "answer", status=status, retry_after=5, times=10)

    deferred = submit_training(sqlite_database, store, provider, run, RULES, clock=clock)
    row = run_row(sqlite_database, run)
    assert (deferred.outcome, row.state, row.lease_until) == (Submission.DEFERRED, "packed", None)
    assert row.not_before is not None
    assert "trainings.create" not in simulator.requests()


def test_with_a_wrong_token_the_training_waits_for_a_right_one(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(sqlite_database, store)
    simulator.fault("models.create", "answer", status=401)
    with pytest.raises(Unauthenticated, match="REPLICATE_API_TOKEN"):
        submit_training(sqlite_database, store, provider, run, RULES, clock=clock)
    row = run_row(sqlite_database, run)
    assert (row.state, row.lease_until) == ("packed", None)


def _creations(simulator: RunningSimulator) -> dict[str, int]:
    return {name: count for name, count in simulator.requests().items() if name in _CREATIONS}
