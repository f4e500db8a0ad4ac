"""Costs and daily caps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.trainings.costs import DailyCaps, cost_of, over_daily_cap

CAPS = DailyCaps(trainings=50, usd=200.0)


def test_a_recorded_training_costs_what_its_seconds_cost() -> None:
    assert cost_of(1674.940257378, "replicate") == 2.5543
    assert cost_of(1800, "replicate") == 2.745
    assert cost_of(1800, "runpod") == 2.088


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_duration_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        cost_of(seconds, "replicate")


def test_the_number_of_a_day_is_capped() -> None:
    assert over_daily_cap(49, 0.0, 2.5, CAPS) is None
    assert "LORA_DAILY_TRAINING_CAP" in (over_daily_cap(50, 0.0, 2.5, CAPS) or "")


def test_the_next_training_counts_towards_the_money_of_a_day() -> None:
    assert over_daily_cap(3, 197.5, 2.5, CAPS) is None
    reason = over_daily_cap(3, 197.51, 2.5, CAPS)
    assert reason is not None
    assert "$197.51" in reason
    assert "LORA_DAILY_COST_CAP" in reason


def test_a_cap_of_nothing_starts_nothing() -> None:
    assert over_daily_cap(0, 0.0, 0.01, DailyCaps(0, 0.0))
    assert over_daily_cap(0, 0.0, 0.01, DailyCaps(1, 0.0))


@given(count=st.integers(0, 100), cost=st.floats(0, 300), more=st.floats(0, 10))
def test_what_is_over_a_cap_stays_over_it_as_the_day_goes_on(count: int, cost: float, more: float) -> None:
    if over_daily_cap(count, cost, 2.5, CAPS):
        assert over_daily_cap(count + 1, cost + more, 2.5, CAPS)
