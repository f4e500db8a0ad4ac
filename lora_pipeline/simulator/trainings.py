"""What a simulated training is and how it lives: a record, and pure functions of the record and the time.

Nothing here is driven: a training's state is computed when somebody looks, so ten thousand open ones cost nothing.
What belongs here: the record, the plan made at creation, the state at a moment. Rows are the ledger's business.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import string
from dataclasses import dataclass, field
from typing import Any

from lora_pipeline.simulator.quirks import AskedFor
from lora_pipeline.simulator.settings import SimulatorSettings

ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
KEY_LETTERS = string.ascii_letters + string.digits
NEVER = 1e15
"""A life second that no clock reaches."""


@dataclass(frozen=True)
class Quirks(AskedFor):
    """How one training deviates from a normal one; all of it is asked for through the control interface."""

    status: str | None = None
    """Shown instead of the real status once the training has ended ("aborted", or a word nobody knows)."""
    substituted_version: str | None = None
    """The trainer version that the provider claims to have used."""
    output: str | None = None
    """`none`, `null_version`, `bare_hash`, `model_hash` or `no_weights` instead of the normal output."""
    weights: str | None = None
    """A damaged archive; the kinds are listed in weights.py."""
    stuck_in: str | None = None
    """`starting` or `processing`: never gets any further."""
    vanishes_after_s: float | None = None
    """Life seconds after creation from which GET and the list no longer know it."""
    cancel: str | None = None
    """`refused` or `ignored`."""
    error: str | None = None
    """The training fails with this message."""
    steps_done: float = 1.0
    """Share of the steps shown as done in the log of a training that fails."""


@dataclass(frozen=True)
class Training:
    """One created (so: paid) training. `*_life` are points on the life scale, `*_s` life seconds."""

    seq: int
    id: str
    trainer: str
    trainer_version: str
    destination: str
    input: dict[str, Any]
    base_url: str
    webhook: str | None
    webhook_events: tuple[str, ...]
    created_shown: float
    created_life: float
    starts_life: float
    ends_life: float
    setup_s: float
    upload_s: float
    steps: int
    outcome: str
    error: str | None
    settled: bool
    archive: str
    images: int | None
    version_hash: str
    weights_key: str
    captions: dict[str, str] = field(repr=False)
    quirks: Quirks

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> Training:
        """The record of a row of `trainings`."""
        values = dict(row)
        values["input"] = json.loads(values["input"])
        values["captions"] = json.loads(values["captions"])
        values["webhook_events"] = (
            tuple(values["webhook_events"].split(",")) if values["webhook_events"] else ()
        )
        values["settled"] = bool(values["settled"])
        del values["webhook_open"], values["start_sent"]
        values["quirks"] = Quirks(**json.loads(values["quirks"]))
        return cls(**values)

    def status(self, life: float) -> str:
        """The provider's word for the state at this moment."""
        if self.settled or (life >= self.ends_life and self.archive != "pending"):
            return self.quirks.status or self.outcome
        return "processing" if life >= self.starts_life else "starting"

    @property
    def vanishes_life(self) -> float:
        """From when on the provider has forgotten it."""
        after = self.quirks.vanishes_after_s
        return NEVER if after is None else self.created_life + after

    @property
    def first_step_life(self) -> float:
        """When the step bar begins."""
        return self.starts_life + self.setup_s

    @property
    def last_step_life(self) -> float:
        """When the step bar is full."""
        return max(self.first_step_life, self.ends_life - self.upload_s)

    def steps_at(self, life: float) -> int:
        """Steps done at this moment."""
        if self.ends_life >= NEVER:
            # Stuck: hangs a tenth of the way in, as trainings that lose their worker do.
            return self.steps // 10 if life > self.first_step_life else 0
        span = self.last_step_life - self.first_step_life
        share = 1.0 if span <= 0 else (min(life, self.ends_life) - self.first_step_life) / span
        if self.outcome == "failed":
            share = min(share, self.quirks.steps_done)
        return int(self.steps * min(max(share, 0.0), 1.0))


@dataclass(frozen=True)
class Plan:
    """When a training that is created now will start and end, decided once."""

    starts_life: float
    ends_life: float
    setup_s: float
    upload_s: float
    steps: int


def plan(settings: SimulatorSettings, identity: str, inputs: dict[str, Any], life: float) -> Plan:
    """Times of a new training: queue, set-up, steps at the settings' pace, upload; varied by its id."""
    steps = int(inputs.get("steps") or inputs.get("training_steps") or 1000)

    def varied(seconds: float, what: str) -> float:
        noise = int.from_bytes(hashlib.sha256(f"{identity}/{what}".encode()).digest()[:4], "big") / 2**32
        return seconds * (1 + settings.jitter * (2 * noise - 1))

    setup, upload = varied(settings.setup_s, "setup"), varied(settings.upload_s, "upload")
    starts = life + varied(settings.queue_s, "queue")
    ends = starts + setup + steps * varied(settings.seconds_per_step, "step") + upload
    return Plan(starts, ends, setup, upload, steps)


def new_id() -> str:
    """26 letters and digits, as the provider's ids look."""
    return "".join(ID_LETTERS[byte % 32] for byte in secrets.token_bytes(26))


def new_weights_key() -> str:
    """The opaque part of a weights URL."""
    return "".join(KEY_LETTERS[byte % 62] for byte in secrets.token_bytes(46))
