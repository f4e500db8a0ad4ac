"""Random lives of a few models: whatever happens in whatever order, every training is paid once and ends as it did.

A failing life is printed by hypothesis as the calls that led to it; the seed line above it runs it again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from lora_pipeline.database.tables import ModelVersion, TrainingRun, UserModel
from lora_pipeline.providers.protocol import JobState
from lora_pipeline.trainings import webhooks
from lora_pipeline.trainings.lifecycle import TERMINAL
from lora_pipeline_tests.proofs.account import Answer, Conditions, Delivery, Leaves
from lora_pipeline_tests.proofs.invariants import Course, broken_rules, states_of, unfinished
from lora_pipeline_tests.proofs.schedules import Setting, memory_of, world_of
from lora_pipeline_tests.proofs.steps import Crash, SteppedDatabase
from lora_pipeline_tests.proofs.world import OURS, Operation, World, add_packed, handle_waiting

MODELS = 2
WORDS = {
    "replicate": ("starting", "processing", "succeeded", "failed", "canceled"),
    "runpod": ("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "TIMED_OUT", "CANCELLED"),
}
kills = st.none() | st.integers(0, 4)
moments = st.none() | st.integers(0, 6)
"""The boundary at which the server hears of every training again, in the middle of what a tick does."""
answers = st.sampled_from(
    [Answer.GIVEN, Answer.LOST, Answer.LATE, Answer.NEVER, Answer.THROTTLED, Answer.NO_MODEL]
)


class Lives(RuleBasedStateMachine):
    """Start, crash, webhooks (doubled, reordered, lost), polls, cancels at the provider, finalisation, retrains."""

    provider = "replicate"

    def __init__(self, database: SteppedDatabase, empty: bytes) -> None:
        super().__init__()
        self._database, self._empty = database, empty
        self._deliveries = 0

    @initialize(
        presigns=st.booleans(),
        lag=st.sampled_from([0.0, 90.0, 2_000.0]),
        late=st.sampled_from([100.0, 4_000.0]),
        tells_token=st.booleans(),
        vanishes=st.sampled_from([None, None, 300.0]),
    )
    def begin(
        self, presigns: bool, lag: float, late: float, tells_token: bool, vanishes: float | None
    ) -> None:
        memory_of(self._database).deserialize(self._empty)
        self._database.steps.start_over()
        # What a provider does not do makes no difference, except that RunPod takes no files.
        conditions = Conditions(
            self.provider,
            presigns=presigns or self.provider == "runpod",
            lag=lag,
            late=late,
            tells_token=tells_token,
            vanishes=vanishes,
        )
        self.world: World = world_of(Setting(conditions), self._database)
        self.course = Course()
        self.attempts = {0: 1}

    @rule(model=st.integers(0, MODELS - 1))
    def train(self, model: int) -> None:
        """A model trains for the first time, or again once its training has ended."""
        with self._database.read() as session:
            runs = (
                session.execute(
                    select(TrainingRun.state)
                    .join(UserModel, UserModel.id == TrainingRun.model_id)
                    .where(UserModel.model_key == f"user-{model}")
                )
                .scalars()
                .all()
            )
        if all(state in TERMINAL for state in runs):
            self.attempts[model] = self.attempts.get(model, 0) + 1
            add_packed(self.world, model, attempt=self.attempts[model])

    @rule(answer=answers, leaves=st.sampled_from(list(Leaves)), killed=kills, heard=moments)
    def submit(self, answer: Answer, leaves: Leaves, killed: int | None, heard: int | None) -> None:
        asked = self.world.provider.account.asked
        self._plan(answers=(*(Answer.GIVEN,) * asked, answer), leaves=leaves)
        self._do(OURS.submit, killed, heard)

    @rule(told=st.booleans(), killed=kills, heard=moments)
    def poll(self, told: bool, killed: int | None, heard: int | None) -> None:
        account = self.world.provider.account
        if not told:
            self._plan(
                reads=(Answer.GIVEN,) * account.reads + (Answer.NEVER,),
                looks=(True,) * account.looks + (False,),
            )
        self._do(OURS.follow, killed, heard)

    @rule(delivery=st.sampled_from(list(Delivery)), killed=kills, heard=moments)
    def finalise(self, delivery: Delivery, killed: int | None, heard: int | None) -> None:
        delivered = self.world.provider.account.delivered
        self._plan(deliveries=(*(Delivery.WHOLE,) * delivered, delivery))
        self._do(OURS.finalise, killed, heard)

    @rule(killed=kills)
    def emit(self, killed: int | None) -> None:
        self._do(OURS.emit, killed)

    @rule(seconds=st.sampled_from([1.0, 20.0, 70.0, 400.0, 700.0, 1_000.0, 4_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.provider.account.trainings)
    @rule(
        which=st.integers(0, 5),
        suffix=st.sampled_from(["", "-u1"]),
        words=st.lists(st.integers(0, 4), min_size=1, max_size=3),
        killed=kills,
    )
    def webhooks(self, which: int, suffix: str, words: list[int], killed: int | None) -> None:
        """Deliveries about one training in any order, doubled or not; those that never come are lost."""
        trainings = self.world.provider.account.trainings
        job_id = trainings[which % len(trainings)].id + (suffix if self.provider == "runpod" else "")
        for word in words:
            self._deliveries += 1
            status = WORDS[self.provider][word]
            delivery = webhooks.Delivery(f"msg_{self._deliveries}", job_id, status, "0" * 64)
            for _ in range(2):
                webhooks.store_delivery(self._database, self.provider, delivery, self.world.now())
        self._do(handle_waiting, killed)

    @precondition(lambda self: self.world.provider.account.trainings)
    @rule(
        which=st.integers(0, 5), state=st.sampled_from([JobState.CANCELED, JobState.FAILED, JobState.ABORTED])
    )
    def ends_at_the_provider(self, which: int, state: JobState) -> None:
        trainings = self.world.provider.account.trainings
        if self.provider == "runpod" and state is JobState.ABORTED:
            state = JobState.FAILED
        self.world.provider.end(trainings[which % len(trainings)].id, state)

    @invariant()
    def the_rules_hold(self) -> None:
        if hasattr(self, "world"):
            wrong = [*self.course.step(states_of(self.world)), *broken_rules(self.world)]
            assert not wrong, wrong

    def teardown(self) -> None:
        """From here on everything goes well: every training has to reach its end."""
        if not hasattr(self, "world"):
            return
        self._plan(answers=(), deliveries=(), reads=(), looks=())
        self.world.ticks = 0
        self.world.live()
        wrong = [*self.course.step(states_of(self.world)), *broken_rules(self.world), *unfinished(self.world)]
        assert not wrong, wrong
        self._numbers_have_no_gap()

    def _numbers_have_no_gap(self) -> None:
        with self._database.read() as session:
            for model in session.scalars(select(UserModel)):
                numbers = session.scalars(
                    select(ModelVersion.number).where(ModelVersion.model_id == model.id)
                ).all()
                assert sorted(numbers) == list(range(1, len(numbers) + 1))

    def _plan(self, **changes: Any) -> None:
        self.world.provider.conditions = replace(self.world.provider.conditions, **changes)

    def _do(self, operation: Operation, killed: int | None, heard: int | None = None) -> None:
        steps = self.world.steps
        steps.start_over()
        steps.crash_at = killed
        if heard is not None:
            steps.pause_at, steps.on_pause = heard, self.world.hear_again
        with suppress(Crash):
            operation(self.world)
        steps.start_over()


def _live(proof_database: tuple[SteppedDatabase, bytes], at: str, **changes: Any) -> None:
    database, empty = proof_database
    rules = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, **changes)

    class Here(Lives):
        provider = at

        def __init__(self) -> None:
            super().__init__(database, empty)

    run_state_machine_as_test(Here, settings=rules)


@pytest.mark.parametrize(("provider", "lives"), [("replicate", 20), ("runpod", 15)])
def test_whatever_happens_every_training_is_paid_once_and_reaches_its_end(
    provider: str, lives: int, proof_database: tuple[SteppedDatabase, bytes]
) -> None:
    _live(
        proof_database, provider, max_examples=lives, stateful_step_count=25, derandomize=True, database=None
    )


@pytest.mark.deep
@pytest.mark.parametrize("provider", ["replicate", "runpod"])
def test_whatever_happens_in_many_more_lives(
    provider: str, proof_database: tuple[SteppedDatabase, bytes]
) -> None:
    _live(proof_database, provider, max_examples=150, stateful_step_count=40)
