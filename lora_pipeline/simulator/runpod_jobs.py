"""What a simulated RunPod job is and how it lives: a record, and pure functions of the record and the time.

Nothing here is driven: a job's state is computed when somebody looks. What belongs here: the record, the plan of an
attempt, the state at a moment. Rows are the book's business, the worker's deeds the worker's.
"""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lora_pipeline.simulator.quirks import AskedFor
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.trainings import NEVER, plan

SUFFIXES = ("-u1", "-e1", "-e2")
Outcome = Literal["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
RETRIED = ("FAILED", "TIMED_OUT")
UPLOADS = (
    "skipped",
    "despite_failure",
    "truncated",
    "html",
    "not_safetensors",
    "header_too_long",
    "not_finite",
)
CHOICES: dict[str, tuple[str, ...]] = {
    "stuck_in": ("queue", "progress"),
    "output": ("none", "not_ok", "error"),
    "upload": UPLOADS,
    "metadata": ("none", "other_token", "hyphens"),
    "cancel": ("refused", "ignored"),
}


@dataclass(frozen=True)
class JobQuirks(AskedFor):
    """How one job deviates from a normal one; a retry is normal again."""

    stuck_in: str | None = None
    """`queue`: never starts, until its ttl. `progress`: never gets on, until its execution timeout."""
    output: str | None = None
    """Of a COMPLETED job: `none`, `not_ok` ({"ok": false}), or `error` ({"status": "error", …})."""
    upload: str | None = None
    """`skipped`: no object though COMPLETED. `despite_failure`: the object, then FAILED or TIMED_OUT. Others: a
    damaged object."""
    metadata: str | None = None
    """Of the object: `none`, `other_token`, or `hyphens` in its names, as gateways that drop '_' need."""
    error: str | None = None
    """FAILED, with this message of an exception in the handler."""
    error_type: str = "RuntimeError"
    status: str | None = None
    """A word that nobody knows, shown instead of the outcome."""
    retained_s: float | None = None
    """Life seconds for which the result is kept, instead of the setting's."""
    vanishes_after_s: float | None = None
    """Life seconds after creation from which nobody knows the job, though its worker goes on."""
    cancel: str | None = None
    """`refused` or `ignored`."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(choices)}")


@dataclass(frozen=True)
class Job:
    """One created (so: paid) job. `*_life` are points on the life scale, `*_s` life seconds."""

    seq: int
    id: str
    endpoint: str
    input: dict[str, Any]
    webhook: str | None
    created_shown: float
    created_life: float
    timeout_s: float
    ttl_s: float
    attempt: int
    queued_life: float
    starts_life: float
    ends_life: float
    finishes_life: float
    """When it would end if nothing cut it off."""
    setup_s: float
    upload_s: float
    steps: int
    outcome: str
    error: str | None
    archive: str
    images: int | None
    upload: str
    size: int | None
    quirks: JobQuirks

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Job:
        """The record of a row of `runpod_jobs`."""
        values = dict(row)
        values["input"] = json.loads(values["input"])
        values["quirks"] = JobQuirks(**json.loads(values["quirks"]))
        del values["webhook_open"]
        return cls(**values)

    @property
    def token(self) -> str | None:
        """The caller's own id of the job: the worker gives it back."""
        token = self.input.get("job_id")
        return token if isinstance(token, str) else None

    @property
    def dies_life(self) -> float:
        """When its ttl deletes it, whatever it is doing."""
        return self.created_life + self.ttl_s

    def has_ended(self, life: float) -> bool:
        """Whether it came to its end, and its worker has done all that it does."""
        return life >= self.ends_life and "pending" not in (self.archive, self.upload)

    def status(self, life: float, running: str = "IN_PROGRESS") -> str:
        """The provider's word for the state at this moment."""
        if self.has_ended(life):
            return self.quirks.status or self.outcome
        return running if life >= self.starts_life else "IN_QUEUE"

    def is_forgotten(self, life: float, retention_s: float) -> bool:
        """Whether the provider answers 404 by now: past its ttl, or some time after its end."""
        kept = retention_s if self.quirks.retained_s is None else self.quirks.retained_s
        vanishes = self.quirks.vanishes_after_s
        return (
            life >= self.dies_life
            or (self.has_ended(life) and life >= self.ends_life + kept)
            or (vanishes is not None and life >= self.created_life + vanishes)
        )

    def steps_at(self, life: float) -> int:
        """Steps done at this moment."""
        first = self.starts_life + self.setup_s
        if self.quirks.stuck_in:
            # Hangs a tenth of the way in, as trainings that lose their GPU do.
            return self.steps // 10 if life > first else 0
        span = self.finishes_life - self.upload_s - first
        share = 1.0 if span <= 0 else (min(life, self.ends_life) - first) / span
        return int(self.steps * min(max(share, 0.0), 1.0))


@dataclass(frozen=True)
class Attempt:
    """One run of a job, planned when it is queued."""

    starts_life: float
    ends_life: float
    finishes_life: float
    setup_s: float
    upload_s: float
    steps: int
    outcome: Outcome
    upload: str


def plan_attempt(
    settings: SimulatorSettings,
    seed: str,
    given: dict[str, Any],
    timeout_s: float,
    quirks: JobQuirks,
    life: float,
) -> Attempt:
    """When an attempt that is queued now will start and end, how, and whether it leaves an object."""
    times = plan(settings, seed, {"steps": given.get("max_train_steps")}, life)
    starts = NEVER if quirks.stuck_in == "queue" else times.starts_life
    natural = NEVER if quirks.stuck_in else times.ends_life
    outcome: Outcome = "FAILED" if quirks.error else "COMPLETED"
    if natural > starts + timeout_s:
        outcome = "TIMED_OUT"
    uploads = quirks.upload == "despite_failure" if outcome != "COMPLETED" else quirks.upload != "skipped"
    return Attempt(
        starts,
        min(natural, starts + timeout_s),
        natural,
        times.setup_s,
        times.upload_s,
        times.steps,
        outcome,
        "pending" if uploads else "skipped",
    )


def new_job_id(settings: SimulatorSettings) -> str:
    """A UUID and the suffix that says where the job runs."""
    return f"{uuid.uuid4()}{settings.runpod_id_suffix or random.choice(SUFFIXES)}"  # noqa: S311  no secret


def exception_text(kind: str, message: str) -> str:
    """How a handler's exception is told: a JSON object inside a text."""
    return json.dumps(
        {
            "error_type": f"<class '{kind}'>",
            "error_message": message,
            "error_traceback": f'Traceback (most recent call last):\n  File "/handler.py", line 61, in handler\n{kind}: {message}\n',
            "hostname": "simulated-worker",
            "worker_id": "simulated",
            "runpod_version": "1.7.13",
        }
    )
