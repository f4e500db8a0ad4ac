"""The working version serves until its successor is verified: a retrain that fails anywhere changes nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ModelVersion
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.finalisation import Finalisation, finalise_training
from lora_pipeline.trainings.submission import Submission, submit_training
from lora_pipeline.versions.first_call import CheckRules
from lora_pipeline.versions.resolve import ResolvedVersion, resolve_version
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, model_row
from lora_pipeline_tests.trainings.steps import FINALISE, RULES, follow, held_run, job_of, set_run, state_of


@dataclass
class Bench:
    """One model with a served version, and everything that a retrain of it needs."""

    database: Database
    store: ObjectStore
    provider: ReplicateProvider
    simulator: RunningSimulator
    clock: Clock

    def packed(self) -> int:
        return add_packed_run(self.database, self.store)

    def submitted(self) -> int:
        run_id = self.packed()
        outcome = submit_training(self.database, self.store, self.provider, run_id, RULES).outcome
        assert outcome is Submission.SUBMITTED
        return run_id

    def succeeded(self) -> int:
        run_id = self.submitted()
        self.simulator.end(job_of(self.database, run_id))
        follow(self.database, self.provider, self.clock)
        assert state_of(self.database, run_id) == "succeeded"
        return run_id

    def finalise(self, run_id: int) -> Finalisation:
        return finalise_training(
            self.database, self.store, self.provider, run_id, FINALISE, clock=self.clock
        ).outcome

    def resolved(self) -> ResolvedVersion:
        return resolve_version(self.database, self.store, "user-50c", CheckRules("test"), check=None)

    def served(self) -> tuple[Any, ...]:
        """Everything that says what is served."""
        model = model_row(self.database)
        with self.database.read() as session:
            return (
                self.resolved(),
                (model.replicate_model_id, model.replicate_version_id, model.lora_weights_url),
                (model.training_status, model.training_progress, model.trigger_word, model.completed_at),
                [(row.id, row.version_id, row.active_to) for row in session.query(Activation)],
                session.query(ModelVersion).count(),
            )


@pytest.fixture
def bench(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> Bench:
    made = Bench(database, store, provider, simulator, clock)
    assert made.finalise(made.succeeded()) is Finalisation.FINALISED
    return made


def refused(bench: Bench) -> str:
    run_id = bench.packed()
    bench.simulator.fault("trainings.create", "answer", status=402)
    submit_training(bench.database, bench.store, bench.provider, run_id, RULES)
    return state_of(bench.database, run_id)


def unknown(bench: Bench) -> str:
    return state_of(
        bench.database,
        held_run(bench.database, bench.store, bench.provider, bench.simulator, bench.clock),
    )


def running(bench: Bench) -> str:
    run_id = bench.submitted()
    bench.simulator.advance(400)
    follow(bench.database, bench.provider, bench.clock)
    return state_of(bench.database, run_id)


def ended(how: str) -> Callable[[Bench], str]:
    def fail(bench: Bench) -> str:
        run_id = bench.submitted()
        bench.simulator.end(job_of(bench.database, run_id), how)
        follow(bench.database, bench.provider, bench.clock)
        return state_of(bench.database, run_id)

    return fail


def cancelled(bench: Bench) -> str:
    run_id = bench.submitted()
    cancel_training(bench.database, bench.provider, run_id, "cli:ada", bench.clock)
    return state_of(bench.database, run_id)


def unfetched(bench: Bench) -> str:
    run_id = bench.succeeded()
    bench.simulator.fault("weights.download", "answer", status=404)
    assert bench.finalise(run_id) is Finalisation.RETRY
    return state_of(bench.database, run_id)


def diverged(bench: Bench) -> str:
    bench.simulator.fault("trainings.create", "quirk", quirk={"weights": "not_finite"})
    run_id = bench.succeeded()
    assert bench.finalise(run_id) is Finalisation.HELD
    return state_of(bench.database, run_id)


def of_another_model(bench: Bench) -> str:
    run_id = bench.succeeded()
    set_run(bench.database, run_id, output_version=f"acme/somebody-else:{'ab' * 32}")
    assert bench.finalise(run_id) is Finalisation.HELD
    return state_of(bench.database, run_id)


STAGES: dict[str, tuple[Callable[[Bench], str], set[str]]] = {
    "packed": (lambda bench: state_of(bench.database, bench.packed()), {"packed"}),
    "refused at submission": (refused, {"failed", "held", "packed"}),
    "of unknown outcome": (unknown, {"held"}),
    "running": (running, {"running"}),
    "failed": (ended("failed"), {"failed"}),
    "aborted": (ended("aborted"), {"aborted"}),
    "cancelled": (cancelled, {"canceled", "submitted", "running"}),
    "succeeded and not verified": (lambda bench: state_of(bench.database, bench.succeeded()), {"succeeded"}),
    "weights not to be had": (unfetched, {"succeeded"}),
    "weights that are not finite": (diverged, {"held"}),
    "version of another model": (of_another_model, {"held"}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_retrain_changes_nothing_of_what_is_served_before_it_is_verified(bench: Bench, stage: str) -> None:
    before = bench.served()
    retrain, states = STAGES[stage]
    assert retrain(bench) in states
    assert bench.served() == before


def test_a_verified_retrain_is_served_and_the_one_before_stays_in_the_history(bench: Bench) -> None:
    before = bench.resolved()
    assert bench.finalise(bench.succeeded()) is Finalisation.FINALISED
    after = bench.resolved()
    assert (before.version, after.version) == (1, 2)
    assert after.provider_version != before.provider_version
    assert after.trigger_word == before.trigger_word
