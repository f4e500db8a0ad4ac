"""Which trainings count as stuck: the rule by itself, and over real rows on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from lora_pipeline.database.sessions import Database
from lora_pipeline.objects import ObjectStore
from lora_pipeline.trainings.controls import pause_submissions
from lora_pipeline.trainings.deadlines import StuckRules, StuckTraining, WaitingRun, find_stuck
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline.trainings.stuck import stuck_facts, stuck_trainings
from lora_pipeline_tests.fixtures.pipeline import T0, Clock, add_packed_run
from lora_pipeline_tests.trainings.steps import ago, set_run

RULES = StuckRules()
LIMITS = {
    TrainingState.READY: RULES.unsent,
    TrainingState.PACKED: RULES.unsent,
    TrainingState.INTENT: RULES.unknown,
    TrainingState.SUBMITTED: RULES.queued,
    TrainingState.RUNNING: timedelta(seconds=1800 * RULES.running_factor),
    TrainingState.SUCCEEDED: RULES.finishing,
}


def waiting(state: TrainingState, **fields: object) -> WaitingRun:
    values: dict[str, object] = {"training_id": "j", "expected_seconds": 1800.0, "choices": "--abandon"}
    return WaitingRun(7, "user-50c", state, T0, **(values | fields))  # type: ignore[arg-type]


def look(run: WaitingRun, age: timedelta, paused: str | None = None) -> StuckTraining | None:
    return find_stuck(run, T0 + age, RULES, paused=paused)


@given(st.sampled_from(sorted(LIMITS)), st.integers(-3600, 3600), st.booleans())
def test_a_training_is_stuck_exactly_after_its_deadline(
    state: TrainingState, seconds: int, outputs_known: bool
) -> None:
    run = waiting(state, outputs_known=outputs_known)
    found = look(run, LIMITS[state] + timedelta(seconds=seconds))
    assert (found is not None) is (seconds > 0)
    if found is not None:
        assert found.why
        assert found.next_command.startswith("lora-pipeline ")


@given(st.sampled_from(sorted(TERMINAL)), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_what_has_ended_is_never_stuck(state: TrainingState, age: timedelta) -> None:
    assert look(waiting(state, cancel_requested_at=T0), age) is None


@pytest.mark.parametrize("state", [TrainingState.HELD, TrainingState.LOST])
def test_what_waits_for_a_person_is_stuck_at_once(state: TrainingState) -> None:
    found = look(waiting(state, reason="nobody knows"), timedelta(0))
    assert found is not None
    assert (found.why, found.serious) == ("nobody knows", True)
    assert found.next_command == "lora-pipeline trainings resolve 7 --abandon"


def test_a_cancel_that_is_not_carried_out_is_told_since_it_was_asked() -> None:
    asked = T0 + timedelta(minutes=1)
    run = waiting(TrainingState.RUNNING, cancel_requested_at=asked)
    assert look(run, timedelta(minutes=15)) is None
    found = look(run, timedelta(minutes=17))
    assert found is not None
    assert (found.since, "bills" in found.why) == (asked, True)


@pytest.mark.parametrize(
    ("reason", "paused", "why", "command"),
    [
        (None, "out of credit", "submissions are paused: out of credit", "lora-pipeline trainings resume"),
        ("the cap is 50", None, "the cap is 50", "lora-pipeline trainings show 7"),
        (None, None, "nothing keeps it from being sent", "lora-pipeline train user-50c"),
    ],
)
def test_what_keeps_a_training_from_being_sent_is_named(
    reason: str | None, paused: str | None, why: str, command: str
) -> None:
    found = look(waiting(TrainingState.PACKED, reason=reason), timedelta(hours=2), paused)
    assert found is not None
    assert why in found.why
    assert (found.next_command, found.serious) == (command, False)


def test_a_long_training_is_measured_against_the_others_and_never_before_half_an_hour() -> None:
    assert look(waiting(TrainingState.RUNNING, expected_seconds=15.0), timedelta(minutes=29)) is None
    assert look(waiting(TrainingState.RUNNING, expected_seconds=15.0), timedelta(minutes=31)) is not None
    assert look(waiting(TrainingState.RUNNING, expected_seconds=3600.0), timedelta(minutes=170)) is None


@pytest.fixture
def queries(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def keep(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", keep)
    yield seen
    event.remove(database.engine, "before_cursor_execute", keep)


def test_the_stuck_ones_among_many_are_found_in_a_bounded_number_of_queries(
    database: Database, store: ObjectStore, clock: Clock, queries: list[str]
) -> None:
    long_ago = ago(clock, days=2)
    states = [TrainingState.HELD, TrainingState.RUNNING, TrainingState.SUCCEEDED, TrainingState.PACKED]
    for number, state in enumerate(states * 3):
        run_id = add_packed_run(database, store, f"user-{number}")
        set_run(database, run_id, state=state, state_changed_at=long_ago, hold_reason="why")
    add_packed_run(database, store, "user-fresh")
    pause_submissions(database, reason="audit", actor="cli:ada", now=clock())
    queries.clear()
    found = stuck_trainings(database, clock())
    assert len(found) == 12
    assert len([one for one in queries if one.startswith("SELECT")]) <= 4
    facts = stuck_facts(found[-1])
    assert facts["since"] == long_ago.isoformat(timespec="seconds")
    packed = next(item for item in found if item.state is TrainingState.PACKED)
    assert packed.why == "submissions are paused: audit"


def test_a_database_without_open_trainings_has_none_stuck(database: Database, clock: Clock) -> None:
    assert stuck_trainings(database, clock()) == []
