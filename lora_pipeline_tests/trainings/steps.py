"""Steps of a training that several tests go through before what they are about."""

from __future__ import annotations

from datetime import datetime, timedelta

from lora_pipeline.database.sessions import Database
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.finalisation import FinalisationRules
from lora_pipeline.trainings.following import FollowReport, FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import Submission, SubmissionRules, submit_training
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, run_row

RULES = SubmissionRules(DailyCaps(50, 200.0), lease=timedelta(minutes=5))
GRACE = timedelta(minutes=15)
FOLLOW = FollowRules(timedelta(seconds=40), ReconcileRules(grace=GRACE))
FINALISE = FinalisationRules(cap_bytes=50_000_000, lease=timedelta(minutes=5))


def submitted_run(
    database: Database, store: ObjectStore, provider: ReplicateProvider, key: str = "user-50c"
) -> int:
    """A run whose job the provider has."""
    run_id = add_packed_run(database, store, key)
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.SUBMITTED
    return run_id


def unknown_run(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    *,
    landed: bool,
    key: str = "user-50c",
) -> int:
    """A run whose creation request got no answer, and did or did not have its effect."""
    run_id = add_packed_run(database, store, key)
    provider.ensure_destination(f"acme/{key}-selfie-lora", description="test")
    simulator.fault("trainings.create", "drop", moment="after" if landed else "before")
    assert submit_training(database, store, provider, run_id, RULES).outcome is Submission.UNKNOWN
    return run_id


def held_run(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> int:
    """A run of unknown outcome that is held, since the provider never had it."""
    run_id = unknown_run(database, store, provider, simulator, landed=False)
    clock.advance(seconds=GRACE.total_seconds() + 60)
    follow(database, provider, clock)
    assert run_row(database, run_id).state == "held"
    return run_id


def follow(database: Database, provider: ReplicateProvider, clock: Clock) -> FollowReport:
    """One status tick."""
    return follow_trainings(database, provider, FOLLOW, clock=clock)


def job_of(database: Database, run_id: int) -> str:
    """The provider's id of a run's job."""
    found = run_row(database, run_id).training_id
    assert found is not None
    return found


def state_of(database: Database, run_id: int) -> str:
    return run_row(database, run_id).state


def set_run(database: Database, run_id: int, **values: object) -> None:
    """Put a run's row into a condition that takes too long to reach."""
    from lora_pipeline.database.tables import TrainingRun

    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id)
        for name, value in values.items():
            setattr(run, name, value)


def ago(clock: Clock, **duration: float) -> datetime:
    return clock() - timedelta(**duration)
