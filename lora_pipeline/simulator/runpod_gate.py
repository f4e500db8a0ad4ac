"""Who may ask the simulated RunPod, and how often: 401 and 429 before any handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_pipeline.simulator import runpod_errors
from lora_pipeline.simulator.rate_limit import RateLimit
from lora_pipeline.simulator.settings import LIMITED

if TYPE_CHECKING:
    from starlette.types import Scope

    from lora_pipeline.simulator.simulator import Simulator

WINDOW_S = 10.0


def new_job_limits() -> dict[str, RateLimit]:
    """One window for each kind of request that is limited."""
    return {f"runpod.{name}": RateLimit(WINDOW_S) for name in LIMITED}


def job_refusal(simulator: Simulator, scope: Scope, operation: str) -> runpod_errors.Refusal | None:
    """The refusal of a request without the key, or of one too many; None for one that may go on."""
    settings = simulator.settings
    scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
    known = key == settings.runpod_api_key if settings.runpod_api_key is not None else bool(key.strip())
    if scheme != "Bearer" or not known:
        return runpod_errors.unauthorized()
    window = simulator.job_limits.get(operation)
    if window is None:
        return None
    limit: int | None = getattr(settings, f"{operation.replace('.', '_')}_limit")
    left, reset = window.hit(limit)
    return runpod_errors.throttled(reset) if left is None else None
