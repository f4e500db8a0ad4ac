"""How a RunPod job looks on the wire: RunPod's JSON, its absent fields included. Times are whole milliseconds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lora_pipeline.simulator.runpod_jobs import Job
from lora_pipeline.simulator.runpod_worker import output_json, progress_json
from lora_pipeline.simulator.settings import SimulatorSettings


def brief_json(job: Job, life: float, settings: SimulatorSettings) -> dict[str, Any]:
    """The answer to `/run`, `/cancel` and `/retry`."""
    return {"id": job.id, "status": job.status(life, settings.runpod_running_word)}


def status_json(job: Job, life: float, settings: SimulatorSettings) -> dict[str, Any]:
    """The answer to `/status`, and the body of a webhook. `output` is there before the end, as progress."""
    body = brief_json(job, life, settings)
    started, ended = job.starts_life <= min(life, job.ends_life), job.has_ended(life)
    if started:
        body["delayTime"] = _milliseconds(job.starts_life - job.queued_life)
    if started and ended:
        body["executionTime"] = _milliseconds(job.ends_life - job.starts_life)
    output: Any = None
    if ended and job.outcome == "COMPLETED":
        output = output_json(job, settings)
    elif started and not ended:
        output = progress_json(job, life)
    if output is not None:
        body["output"] = output
    if ended and job.outcome == "FAILED":
        body["error"] = job.error
    if settings.runpod_echo_input:
        body["input"] = job.input
    return body


def health_json(counts: Counter[str]) -> dict[str, Any]:
    """The answer to `/health`: the endpoint's jobs and workers."""
    running = counts["IN_PROGRESS"]
    return {
        "jobs": {
            "completed": counts["COMPLETED"],
            "failed": counts["FAILED"] + counts["TIMED_OUT"],
            "inProgress": running,
            "inQueue": counts["IN_QUEUE"],
            "retried": counts["retried"],
        },
        "workers": {"idle": 0, "running": running},
    }


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)
