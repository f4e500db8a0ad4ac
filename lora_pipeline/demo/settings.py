"""The environment that the demo runs in: its own settings, and nothing of a real account."""

from __future__ import annotations

from collections.abc import Mapping

SIMULATOR_SPEED = 60.0
"""Seconds of a training's life in a second: a thousand steps take about 17 s."""

_SETTINGS = {
    "LORA_IMAGE_PROFILE": "demo",
    "LORA_READY_IMAGES": "5",
    "LORA_READY_QUIET": "3",
    "LORA_POLL_INTERVAL": "3",
    "LORA_LEASE": "30",
    # A demo that was killed while it asked for a training finishes by itself: the simulator dies with it, so no
    # request of its can still land late, which is why nobody else should set this without a thought.
    "LORA_AUTO_RESUBMIT_AFTER": "15",
}
_KEPT = ("LORA_HOME", "LORA_DEBUG")
_REAL = ("DATABASE_URL", "REPLICATE_", "RUNPOD_", "AWS_", "LORA_", "DAGSTER_")


def demo_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that leads to a real database, bucket or provider, with the demo's settings.

    Whoever has a real token exported must not pay for looking at the demo.
    """
    own = {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not name.upper().startswith(_REAL)
    }
    return {**own, **_SETTINGS}
