"""The lifecycle as a rule: the order and repetition of what is seen never change where a training ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.providers.protocol import JobState
from lora_pipeline.trainings.lifecycle import FOLLOWED, TERMINAL, TrainingState, next_state

ENDS = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.ABORTED]
SHOWN_AS = {
    JobState.SUCCEEDED: TrainingState.SUCCEEDED,
    JobState.FAILED: TrainingState.FAILED,
    JobState.CANCELED: TrainingState.CANCELED,
    JobState.ABORTED: TrainingState.ABORTED,
    JobState.RUNNING: TrainingState.RUNNING,
    JobState.QUEUED: TrainingState.SUBMITTED,
}
FORWARD = [TrainingState.SUBMITTED, TrainingState.RUNNING, TrainingState.SUCCEEDED]

states = st.sampled_from(list(TrainingState))
seen = st.sampled_from(list(JobState))


@st.composite
def histories(draw: st.DrawFn) -> list[JobState]:
    """How one job really went, as far as it has come: each state at most once, in its order."""
    running = draw(st.booleans())
    end = draw(st.none() | st.sampled_from(ENDS))
    return [JobState.QUEUED, *([JobState.RUNNING] if running else []), *([end] if end else [])]


@st.composite
def sightings(draw: st.DrawFn) -> tuple[list[JobState], list[JobState]]:
    """A history, and its states as they were seen: all of them, in any order, repeated, with unknown words between."""
    history = draw(histories())
    more = draw(st.lists(st.sampled_from([*history, JobState.UNKNOWN]), max_size=8))
    return history, draw(st.permutations([*history, *more]))


def after(start: TrainingState, observations: list[JobState]) -> TrainingState:
    state = start
    for one in observations:
        state = next_state(state, one) or state
    return state


@given(sightings())
def test_any_order_and_repetition_of_one_true_history_ends_in_its_last_state(
    both: tuple[list[JobState], list[JobState]],
) -> None:
    history, observations = both
    assert after(TrainingState.SUBMITTED, observations) is SHOWN_AS[history[-1]]


@given(sightings(), st.data())
def test_a_training_that_was_lost_meanwhile_ends_where_it_would_have(
    both: tuple[list[JobState], list[JobState]], data: st.DataObject
) -> None:
    """A 404 in between moves it to `lost`, from wherever it was open; what is seen of an ended job ends it."""
    history, observations = both
    if history[-1] not in ENDS:
        return
    lost_before = data.draw(st.integers(0, len(observations)))
    state = after(TrainingState.SUBMITTED, observations[:lost_before])
    if state in (TrainingState.SUBMITTED, TrainingState.RUNNING):
        state = TrainingState.LOST
    assert after(state, [*observations[lost_before:], history[-1]]) is SHOWN_AS[history[-1]]


@given(st.sampled_from(sorted(TERMINAL)), st.lists(seen, max_size=10))
def test_an_ended_training_is_never_left(state: TrainingState, observations: list[JobState]) -> None:
    assert after(state, observations) is state


@given(states, seen)
def test_nothing_that_is_seen_moves_a_training_backwards(state: TrainingState, one: JobState) -> None:
    to = next_state(state, one)
    if to is None:
        return
    assert state in FOLLOWED, "only what is followed moves by being seen"
    assert to is not state
    if state in FORWARD and to in FORWARD:
        assert FORWARD.index(to) > FORWARD.index(state)


@given(states)
def test_a_word_that_nobody_knows_decides_nothing(state: TrainingState) -> None:
    assert next_state(state, JobState.UNKNOWN) is None


@settings(max_examples=300)
@given(states, seen)
def test_seeing_the_same_twice_is_seeing_it_once(state: TrainingState, one: JobState) -> None:
    once = next_state(state, one) or state
    assert next_state(once, one) is None
