"""One training through every step, over real HTTP, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    LoraWeights,
    ModelVersion,
    OutboxEvent,
    TrainingRun,
    VersionAlias,
)
from lora_pipeline.objects import ObjectNotFound, ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.datasets import delete_ended_datasets
from lora_pipeline.trainings.finalisation import Finalisation, FinalisationRules, finalise_training
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import Submission, SubmissionRules, submit_training
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, model_row, run_row

RULES = SubmissionRules(DailyCaps(50, 200.0), lease=timedelta(minutes=5))
FOLLOW = FollowRules(timedelta(seconds=40), ReconcileRules(grace=timedelta(minutes=15)))
FINALISE = FinalisationRules(cap_bytes=50_000_000, lease=timedelta(minutes=5))


@pytest.fixture
def submitted(
    database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> int:
    run_id = add_packed_run(database, store)
    result = submit_training(database, store, provider, run_id, RULES)
    assert result.outcome is Submission.SUBMITTED
    return run_id


def test_a_submitted_training_is_running_then_succeeded_then_served(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    submitted: int,
    clock: Clock,
) -> None:
    assert run_row(database, submitted).state == "submitted"
    assert model_row(database).training_status == "training"

    simulator.advance(400)
    report = follow_trainings(database, provider, FOLLOW, clock=clock)
    run = run_row(database, submitted)
    assert (run.state, run.status) == ("running", "training")
    assert report.log_reads == 1
    assert 0 < run.progress < 99
    assert not run.progress_estimated
    assert run.loss_history

    simulator.advance(3600)
    follow_trainings(database, provider, FOLLOW, clock=clock)
    run = run_row(database, submitted)
    assert (run.state, run.progress) == ("succeeded", 99)
    assert run.cost

    result = finalise_training(database, store, provider, submitted, FINALISE, clock=clock)
    assert result.outcome is Finalisation.FINALISED, result
    assert result.version == 1
    with database.read() as session:
        version = session.query(ModelVersion).one()
        artifact = session.query(Artifact).one()
        weights = session.query(LoraWeights).one()
        aliases = {alias.kind for alias in session.query(VersionAlias)}
        activation = session.query(Activation).one()
    model = model_row(database)
    assert model.replicate_model_id == "acme/user-50c-selfie-lora"
    assert model.replicate_version_id == version.provider_version == run.output_version
    assert model.lora_weights_url == version.weights_url
    assert (model.training_status, model.training_progress) == ("completed", 100)
    assert version.weights_state == "verified"
    assert weights.checksum == artifact.file_sha256
    assert aliases == {"training_id", "provider_version", "object"}
    assert activation.version_id == version.id
    assert activation.active_to is None

    assert store.get_bytes(f"loras/user-50c/{artifact.file_sha256}.safetensors")
    assert delete_ended_datasets(database, store, provider, clock()) == 1
    with pytest.raises(ObjectNotFound):
        store.head(str(run.zip_key))
    assert run_row(database, submitted).dataset_zip_url is None


def test_every_step_owes_dagster_its_event(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    submitted: int,
) -> None:
    simulator.advance(7200)
    follow_trainings(database, provider, FOLLOW)
    finalise_training(database, store, provider, submitted, FINALISE)
    with database.read() as session:
        events = [event.event_id for event in session.query(OutboxEvent).order_by(OutboxEvent.id)]
    assert events == [
        f"training:{submitted}:submitted",
        f"training:{submitted}:succeeded",
        f"lora:{submitted}",
    ]


def test_finalising_twice_makes_one_version(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    submitted: int,
) -> None:
    simulator.advance(7200)
    follow_trainings(database, provider, FOLLOW)
    first = finalise_training(database, store, provider, submitted, FINALISE)
    second = finalise_training(database, store, provider, submitted, FINALISE)
    assert (first.outcome, second.outcome) == (Finalisation.FINALISED, Finalisation.TAKEN)
    with database.read() as session:
        assert session.query(ModelVersion).count() == 1


def test_a_failed_training_says_why_and_a_working_version_stays(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    submitted: int,
) -> None:
    simulator.advance(7200)
    follow_trainings(database, provider, FOLLOW)
    finalise_training(database, store, provider, submitted, FINALISE)
    served = model_row(database).replicate_version_id

    retrain = add_packed_run(database, store)
    assert submit_training(database, store, provider, retrain, RULES).outcome is Submission.SUBMITTED
    simulator.end(str(run_row(database, retrain).training_id), "failed", "CUDA out of memory")
    follow_trainings(database, provider, FOLLOW)

    run = run_row(database, retrain)
    assert run.state == "failed"
    assert "CUDA out of memory" in str(run.error)
    model = model_row(database)
    assert (model.training_status, model.replicate_version_id) == ("completed", served)


def test_nothing_open_asks_the_provider_nothing(
    database: Database,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = sum(simulator.requests().values())
    with caplog.at_level("INFO"):
        follow_trainings(database, provider, FOLLOW)
    assert sum(simulator.requests().values()) == before
    assert "No in-progress trainings found" in caplog.text


def test_two_submitters_start_one_training(
    database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    run_id = add_packed_run(database, store)
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(lambda _: submit_training(database, store, provider, run_id, RULES), range(6))
        )
    outcomes = sorted(result.outcome for result in results)
    assert outcomes.count(Submission.SUBMITTED) == 1
    assert outcomes.count(Submission.TAKEN) == 5
    assert simulator.paid()["count"] == 1
    with database.read() as session:
        assert session.query(TrainingRun).one().training_id
