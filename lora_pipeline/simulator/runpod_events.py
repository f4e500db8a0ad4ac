"""Webhooks of RunPod jobs: one when a job has ended, unsigned, its body what `/status` would answer.

Which of the ends are told is not documented; here all but a ttl's are. Delivery is the postman's (webhooks.py):
200 is expected, two more tries follow ten seconds apart.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from lora_pipeline.simulator.operations import JOB_WEBHOOKS
from lora_pipeline.simulator.runpod_jobs import Job
from lora_pipeline.simulator.runpod_wire import status_json
from lora_pipeline.simulator.webhooks import JOB_ENDED, JOB_FORGED

if TYPE_CHECKING:
    from lora_pipeline.simulator.simulator import Simulator


class JobEvents:
    """Queues the webhooks that have come due."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def queue_due(self) -> None:
        """Queue the webhook of every job that has ended since the last look."""
        simulator = self._simulator
        while jobs := simulator.jobs.to_tell(simulator.clock.now().life):
            for job in jobs:
                with simulator.state.transaction():
                    simulator.jobs.close_webhook(job)
                    self._queue(job)

    def _queue(self, job: Job) -> None:
        simulator = self._simulator
        body = status_json(job, simulator.clock.now().life, simulator.settings)
        fault = simulator.faults.take(JOB_WEBHOOKS, job.id)
        kind = fault.kind if fault else None
        if kind:
            simulator.happened[f"{JOB_WEBHOOKS} {kind}"] += 1
        delay_s = fault.seconds if fault and kind == "late" else 0.0
        match kind:
            case "lost":
                simulator.postman.log("", job.id, JOB_ENDED, 0, "lost")
                return
            case "doubled":
                self._put(job, JOB_ENDED, body)
            case "forged":
                self._put(job, JOB_FORGED, forged(body))
        self._put(job, JOB_ENDED, body, delay_s)

    def _put(self, job: Job, event: str, body: dict[str, Any], delay_s: float = 0.0) -> None:
        self._simulator.postman.put(
            job.id, str(job.webhook), event, secrets.token_urlsafe(20), json.dumps(body), delay_s=delay_s
        )


def forged(body: dict[str, Any]) -> dict[str, Any]:
    """What somebody who knows the address would like to be believed: success, with weights of their own."""
    address = "https://mallory.s3.amazonaws.com/lora.safetensors"
    output = {"job_id": "mallory", "loraUrl": address, "status": "success"}
    return {name: value for name, value in body.items() if name != "error"} | {
        "status": "COMPLETED",
        "output": output,
    }
