"""What a training costs, and when a day's money is spent. Pure; who counts the day's trainings is elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

H100_USD_PER_SECOND = 0.001525
"""Replicate's published price of an Nvidia H100, on which it runs Flux fine-tunes (replicate.com/pricing, 2025).

Billed by the second of `predict_time`; queueing is free. A setting, should it change.
"""


@dataclass(frozen=True)
class DailyCaps:
    """How much may be started in one day (UTC)."""

    trainings: int
    usd: float


def estimated_cost(expected_seconds: float, usd_per_second: float = H100_USD_PER_SECOND) -> float:
    """US dollars that a training of this length will cost, before it has run."""
    return cost_of(expected_seconds, usd_per_second)


def cost_of(predict_seconds: float, usd_per_second: float = H100_USD_PER_SECOND) -> float:
    """US dollars for the seconds that the provider measured, to a hundredth of a cent.

    Computed, not billed: the provider's answers carry no amount.
    """
    if not (math.isfinite(predict_seconds) and predict_seconds >= 0):
        raise ValueError(f"the cost of {predict_seconds} s: expected a duration of 0 s or more")
    return round(predict_seconds * usd_per_second, 4)


def over_daily_cap(count_today: int, cost_today: float, next_cost: float, caps: DailyCaps) -> str | None:
    """Why one more training of `next_cost` (US dollars, estimated) must wait until tomorrow; None where it need not."""
    if count_today >= caps.trainings:
        return (
            f"{count_today} trainings were started today (UTC) and the cap is {caps.trainings}; this one starts "
            "tomorrow. Raise LORA_DAILY_TRAINING_CAP to start it today"
        )
    if cost_today + next_cost > caps.usd:
        return (
            f"trainings started today (UTC) cost an estimated ${cost_today:.2f}; ${next_cost:.2f} more would exceed "
            f"the cap of ${caps.usd:.2f}; this one starts tomorrow. Raise LORA_DAILY_COST_CAP to start it today"
        )
    return None
