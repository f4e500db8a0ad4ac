"""What a training costs, and when a day's money is spent. Pure; who counts the day's trainings is elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

USD_PER_SECOND = {"replicate": 0.001525, "runpod": 0.00116}
"""What a second of an Nvidia H100 costs, as published in 2025: at Replicate, which runs Flux fine-tunes on it
(replicate.com/pricing), and as a flex worker of a RunPod endpoint (runpod.io/pricing).

Billed by the second of work; queueing is free.
"""


@dataclass(frozen=True)
class DailyCaps:
    """How much may be started in one day (UTC)."""

    trainings: int
    usd: float


def cost_of(predict_seconds: float, provider: str) -> float:
    """US dollars for seconds that the provider measured, or is expected to take, to a hundredth of a cent.

    Computed, not billed: the provider's answers carry no amount.
    """
    if not (math.isfinite(predict_seconds) and predict_seconds >= 0):
        raise ValueError(f"the cost of {predict_seconds} s: expected a duration of 0 s or more")
    return round(predict_seconds * USD_PER_SECOND[provider], 4)


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
