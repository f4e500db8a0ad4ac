"""Every setting of the simulated RunPod and its worker, beside those that both providers share (settings.py).

RunPod documents its times and limits, and no bodies of errors: those are plain here (`runpod_errors`). What is
marked "inferred" nobody has confirmed; a consumer can be tried against both answers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RunPodSettings(BaseModel):
    """How the simulated RunPod behaves; part of `SimulatorSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runpod_api_key: str | None = None
    """The only key accepted; None accepts any that is not empty."""
    runpod_endpoint: str | None = None
    """The only endpoint that exists; None lets every id exist."""
    runpod_run_limit: int | None = Field(1000, ge=1)
    """`/run` requests in ten seconds before 429; None never throttles."""
    runpod_status_limit: int | None = Field(2000, ge=1)
    """`/status` requests in ten seconds before 429; None never throttles."""
    runpod_cancel_limit: int | None = Field(100, ge=1)
    """`/cancel` requests in ten seconds before 429; None never throttles."""
    runpod_retention_s: float = Field(1800.0, ge=0)
    """Life seconds for which the result of a job that has ended is kept; then `/status` answers 404."""
    runpod_execution_timeout_s: float = Field(600.0, gt=0)
    """Life seconds a job may run where its policy says nothing: the ten minutes that end every longer training."""
    runpod_ttl_s: float = Field(86_400.0, gt=0)
    """Life seconds a job may exist where its policy says nothing, queue included; then it is gone, even in mid-run."""
    runpod_id_suffix: str | None = Field(None, pattern=r"^-[a-z][0-9]{1,3}$")
    """What job ids end in; None takes -u1, -e1 or -e2 at random. Which of them when is not known."""
    runpod_running_word: Literal["IN_PROGRESS", "RUNNING"] = "IN_PROGRESS"
    """The word for a job at work: answers say the first, the documentation names the second too."""
    runpod_echo_input: bool = False
    """Whether `/status` and webhooks give the job's input back. Inferred: recorded answers have none."""
    runpod_refused_retry_status: int = Field(400, ge=400, le=499)
    """Status of a `/retry` of a job that is not FAILED or TIMED_OUT. Inferred."""
    runpod_webhook_retry_s: tuple[float, ...] = (10.0, 10.0)
    """Real seconds before the second and third attempt to deliver a webhook that was not answered with 200."""

    worker_aws: dict[str, str] = Field(default_factory=dict, repr=False)
    """`AWS_…` settings of the simulated worker, on top of those of the simulator's process: endpoint, region, keys."""
    worker_url_spelling: Literal["accelerate", "regional"] = "accelerate"
    """How the worker spells the address of the weights: workers in use do both."""
