"""What keeps one training waiting must not keep the others waiting, nor cost more than it is worth."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from lora_pipeline.database.tables import Activation, ModelVersion, TrainingRun
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.finalisation import (
    Finalisation,
    FinalisationResult,
    FinalisationRules,
    finalise_training,
)
from lora_pipeline.trainings.following import FollowReport, FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import Submission, SubmissionRules, submit_training
from lora_pipeline.versions.activation import activate
from lora_pipeline_tests.proofs.account import Conditions
from lora_pipeline_tests.proofs.invariants import broken_rules
from lora_pipeline_tests.proofs.schedules import Setting
from lora_pipeline_tests.proofs.world import GRACE, LEASE, World, add_packed, follow, submit

NEVER_LISTED = 1e9


def followed(world: World) -> FollowReport:
    rules = FollowRules(timedelta(seconds=40), ReconcileRules(GRACE))
    return follow_trainings(world.database, world.provider, rules, clock=world.now)


def finalised(world: World) -> FinalisationResult:
    rules = FinalisationRules(cap_bytes=1_000_000, lease=LEASE)
    return finalise_training(world.database, world.store, world.provider, 1, rules, clock=world.now)


def run_row(world: World, run_id: int = 1) -> TrainingRun:
    with world.database.read() as session:
        return session.get_one(TrainingRun, run_id)


def succeeded(world: World) -> None:
    submit(world)
    world.advance(700)
    follow(world)
    assert world.states() == ["succeeded"]


def test_a_training_that_the_list_does_not_show_is_not_looked_for_in_all_of_history(
    new_world: Callable[..., World],
) -> None:
    world = new_world(Setting(Conditions(lag=NEVER_LISTED, history=300)))
    submit(world)
    world.advance(1_800)
    report = followed(world)
    assert run_row(world).state == "succeeded", "it was asked for by its id"
    assert report.pages <= 2


def test_trainings_that_cannot_be_read_leave_the_others_their_turn(new_world: Callable[..., World]) -> None:
    world = new_world(Setting(Conditions(lag=NEVER_LISTED, unreadable=22)))
    for number in range(1, 25):
        add_packed(world, number)
    submit(world)
    world.advance(700)
    for _ in range(2):
        followed(world)
        world.advance(120)
    assert [run_row(world, number).state for number in (23, 24, 25)] == ["succeeded"] * 3
    assert run_row(world).poll_failures > 0


def test_a_store_that_is_away_uses_up_no_attempt_and_stops_no_batch(new_world: Callable[..., World]) -> None:
    world = new_world(Setting())
    succeeded(world)
    world.store.unavailable = 10
    for _ in range(10):
        assert finalised(world).outcome is Finalisation.RETRY
        world.advance(600)
    assert run_row(world).finalise_attempts == 0
    assert finalised(world).outcome is Finalisation.FINALISED


def test_a_version_that_a_sync_brought_in_is_completed_by_its_own_training(
    new_world: Callable[..., World],
) -> None:
    world = new_world(Setting())
    succeeded(world)
    brought_in(world, model_id=1)
    assert finalised(world).outcome is Finalisation.FINALISED
    with world.database.read() as session:
        version = session.query(ModelVersion).one()
        activation = session.query(Activation).filter_by(active_to=None).one()
    assert (version.number, version.training_run_id, version.weights_state) == (7, 1, "verified")
    assert version.artifact_id is not None
    assert activation.version_id == version.id
    assert not broken_rules(world)


def test_a_version_that_another_model_has_is_held_with_the_reason(new_world: Callable[..., World]) -> None:
    world = new_world(Setting())
    add_packed(world, 1)
    with world.database.begin() as session:
        session.get_one(TrainingRun, 2).state = "canceled"
    submit(world)
    world.advance(700)
    follow(world)
    brought_in(world, model_id=2)
    result = finalised(world)
    assert result.outcome is Finalisation.HELD
    assert "registered as V7 of model 2 already" in str(result.reason)
    assert run_row(world).hold_reason


def brought_in(world: World, model_id: int) -> None:
    """The run's version, registered and served by a sync that did not know the run."""
    from lora_pipeline.database.tables import UserModel

    run, now = run_row(world), world.now()
    with world.database.begin() as session:
        version = ModelVersion(
            model_id=model_id,
            number=7,
            provider="replicate",
            provider_version=run.output_version,
            weights_url=run.output_artifact_url,
            trigger_word=run.trigger_word,
            lora_scale=1.0,
            created_at=now,
            updated_at=now,
        )
        session.add(version)
        session.flush()
        model = session.get_one(UserModel, model_id)
        activate(session, model, version, actor="sync", reason="latest", now=now)


def test_a_run_opened_with_a_simulator_counts_against_the_caps_of_a_real_account(
    new_world: Callable[..., World],
) -> None:
    world = new_world(Setting())
    world.provider.simulated = False
    rules = SubmissionRules(DailyCaps(0, 0.0), lease=LEASE)
    result = submit_training(world.database, world.store, world.provider, 1, rules, clock=world.now)
    assert result.outcome is Submission.DEFERRED
    assert not world.provider.account.trainings
    assert run_row(world).simulated is False
