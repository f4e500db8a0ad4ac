"""The rules behind a simulated life: the two times, the plan, the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_pipeline.simulator.clock import SimulatedClock, stamp
from lora_pipeline.simulator.logs import bar, loss_at, progress, span
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import new_id, new_weights_key, plan

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.floats(0, 1e6)),
        st.tuples(st.just("speed"), st.sampled_from([0.0, 0.5, 1.0, 120.0, 1e5])),
        st.tuples(st.just("restart"), st.sampled_from([0.0, 1.0, 120.0])),
    ),
    max_size=12,
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    found = State(tmp_path)
    yield found
    found.close()


@given(MOVES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_neither_time_ever_goes_back_whatever_is_done_to_the_clock(
    state: State, moves: list[tuple[str, float]]
) -> None:
    clock = SimulatedClock(state, 1.0)
    seen = [clock.now()]
    for kind, value in moves:
        if kind == "advance":
            clock.advance(value)
        elif kind == "speed":
            clock.set_speed(value)
        else:
            clock = SimulatedClock(state, value)
        seen.append(clock.now())
    assert all(a.life <= b.life and a.shown <= b.shown for a, b in pairwise(seen))
    told = [clock.shown_of(instant.life) for instant in seen]
    assert all(a <= b + 1e-3 for a, b in pairwise(told))
    assert all(clock.shown_of(instant.life) <= instant.shown + 0.05 for instant in seen)


def test_a_moment_of_life_is_shown_at_one_time_for_ever(state: State) -> None:
    clock = SimulatedClock(state, 0.0)
    clock.advance(100)
    moment = clock.now().life - 40
    told = clock.shown_of(moment)
    clock.advance(1000)
    clock.set_speed(120.0)
    clock.advance(1e5)
    assert clock.shown_of(moment) == told


def test_advancing_moves_life_by_what_was_asked_for_and_the_wall_by_its_share(state: State) -> None:
    clock = SimulatedClock(state, 100.0)
    before = clock.now()
    after = clock.advance(5000)
    assert after.life - before.life == pytest.approx(5000, abs=100)
    assert after.shown - before.shown == pytest.approx(50, abs=1)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


@given(st.integers(3, 6000), st.floats(0, 1e9))
def test_a_plan_takes_about_nine_tenths_of_a_second_a_step(steps: int, life: float) -> None:
    found = plan(SimulatorSettings(), new_id(), {"steps": steps}, life)
    running = found.ends_life - found.starts_life - found.setup_s - found.upload_s
    assert 0.64 * steps - 1e-3 <= running <= 1.14 * steps + 1e-3
    assert life <= found.starts_life < found.ends_life


@given(st.floats(0, 1))
def test_a_bar_is_ten_cells_wide(share: float) -> None:
    assert len(bar(share)) == 10


@given(st.integers(1, 6000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_progress_line_has_tqdm_s_shape(counts: tuple[int, int]) -> None:
    done, total = counts
    line = progress("x: ", done, total, done * 0.9, ", lr: 4.0e-04 loss: 3.1e-01")
    assert re.fullmatch(
        r"x: +\d{1,3}%\|.{10}\| \d+/\d+ \[[\d:]+<[\d:?]+, (\?it/s|[\d.]+(it/s|s/it)), lr: 4.0e-04 loss: 3.1e-01\]",
        line,
    )


def test_the_recorded_line_comes_out_as_it_was_recorded() -> None:
    line = progress("flux_train_replicate: ", 100, 1000, 83.0, ", lr: 4.0e-04 loss: 3.1e-01")
    assert line == (
        "flux_train_replicate:  10%|█         | 100/1000 [01:23<12:27, 1.20it/s, lr: 4.0e-04 loss: 3.1e-01]"
    )
    assert span(3661) == "1:01:01"


@given(st.text(min_size=1, max_size=30), st.integers(100, 6000))
def test_the_loss_falls(identity: str, steps: int) -> None:
    first = sum(loss_at(identity, step, steps) for step in range(20))
    last = sum(loss_at(identity, steps - step, steps) for step in range(20))
    assert last < first


def test_ids_and_keys_have_the_provider_s_shape() -> None:
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", new_id())
    assert re.fullmatch(r"[A-Za-z0-9]{46}", new_weights_key())
    assert re.fullmatch(r"2025-06-05T\d\d:\d\d:\d\d\.\d{9}Z", stamp(1749128401.25, digits=9))
