"""Lost submissions at a provider that lists nothing: many of them, given up ones, and weights that name no job."""

from __future__ import annotations

from collections.abc import Callable

from lora_pipeline.database.tables import ReviewItem, TrainingRun
from lora_pipeline.trainings.deciding import Decision, abandon_training, resubmit_training
from lora_pipeline.trainings.late_landings import SecondTrainings, cancel_second_trainings
from lora_pipeline.trainings.polling import MAX_BUCKET_LOOKS
from lora_pipeline_tests.proofs.account import Answer, Conditions, Leaves
from lora_pipeline_tests.proofs.invariants import broken_rules
from lora_pipeline_tests.proofs.schedules import Setting
from lora_pipeline_tests.proofs.unlisted import UnlistedProvider
from lora_pipeline_tests.proofs.world import World, add_packed, finalise, follow, submit

ADA = "ada"


def held(world: World) -> World:
    """The one run's request went without an answer, and nothing has shown it in time."""
    submit(world)
    world.advance(1_000)
    follow(world)
    assert world.states() == ["held"]
    return world


def run_row(world: World) -> TrainingRun:
    with world.database.read() as session:
        return session.get_one(TrainingRun, 1)


def ended_seconds(world: World) -> SecondTrainings:
    return cancel_second_trainings(world.database, world.provider, world.now, 10)


def test_submissions_that_never_arrived_do_not_hide_one_that_did(new_world: Callable[..., World]) -> None:
    never = MAX_BUCKET_LOOKS + 5
    world = new_world(Setting(Conditions("runpod", answers=(Answer.NEVER,) * never + (Answer.LOST,))))
    for number in range(1, never + 1):
        add_packed(world, number)
    submit(world)
    world.advance(1_000)
    for _ in range(2):
        follow(world)
        world.advance(120)
    assert world.states() == ["held"] * never + ["succeeded"]


def test_weights_that_cannot_be_looked_for_do_not_hide_the_others(new_world: Callable[..., World]) -> None:
    world = new_world(Setting(Conditions("runpod", answers=(Answer.LOST,) * 3)))
    for number in (1, 2):
        add_packed(world, number)
    submit(world)
    assert isinstance(world.provider, UnlistedProvider)
    world.provider.denied = frozenset({run_row(world).token})
    world.advance(1_000)
    for _ in range(2):
        follow(world)
        world.advance(120)
    assert world.states() == ["intent", "succeeded", "succeeded"]


def test_a_training_that_lands_after_it_was_given_up_and_ran_to_its_end_stays_for_a_person(
    new_world: Callable[..., World],
) -> None:
    """Its weights show it once it is over, and RunPod has forgotten it by then: nothing was cancelled in time."""
    world = held(new_world(Setting(Conditions("runpod", answers=(Answer.LOST,), length=2_400))))
    abandon_training(world.database, world.provider, 1, ADA, world.now)
    world.advance(2 * 3_600)
    follow(world)
    assert len(ended_seconds(world).ended) == 1
    with world.database.read() as session:
        item = session.query(ReviewItem).one()
    assert (item.details["second_job_state"], item.resolved_at) == ("succeeded", None)
    assert ended_seconds(world).asked == 0


def test_weights_that_name_no_job_speak_of_no_second_one(new_world: Callable[..., World]) -> None:
    world = held(
        new_world(Setting(Conditions("runpod", answers=(Answer.NEVER,), leaves=Leaves.UNNAMED, length=600)))
    )
    decided = resubmit_training(world.database, world.provider, 1, ADA, world.now)
    assert decided.decision is Decision.RESUBMITTED
    submit(world)
    world.advance(700)
    for _ in range(2):
        follow(world)
        finalise(world)
    assert world.states() == ["finalised"]
    assert not broken_rules(world)


def test_a_held_training_whose_weights_came_unnamed_is_adopted_and_not_sent_again(
    new_world: Callable[..., World],
) -> None:
    world = held(
        new_world(Setting(Conditions("runpod", answers=(Answer.LOST,), leaves=Leaves.UNNAMED, length=1_200)))
    )
    world.advance(3_600)
    decided = resubmit_training(world.database, world.provider, 1, ADA, world.now)
    assert (decided.decision, decided.state) == (Decision.ADOPTED, "succeeded")
    finalise(world)
    assert run_row(world).state == "finalised"
    assert not broken_rules(world)
