"""The simulated providers: their parts put together, and nothing else. The HTTP faces work on this object."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections import Counter
from typing import Any

from lora_pipeline.simulator.attendant import Attendant
from lora_pipeline.simulator.catalog import Catalog
from lora_pipeline.simulator.clock import SimulatedClock
from lora_pipeline.simulator.faults import FaultQueue
from lora_pipeline.simulator.front import Transports
from lora_pipeline.simulator.ledger import Ledger
from lora_pipeline.simulator.rate_limit import RateLimit
from lora_pipeline.simulator.runpod_book import JobBook
from lora_pipeline.simulator.runpod_events import JobEvents
from lora_pipeline.simulator.runpod_gate import new_job_limits
from lora_pipeline.simulator.runpod_worker import Worker
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.shelf import Shelf
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.webhooks import Postman


def new_limits() -> dict[bool, RateLimit]:
    """One window for creations (True) and one for everything else."""
    return {True: RateLimit(), False: RateLimit()}


class Simulator:
    """State, time and settings of a running simulator. Made once by `create_app`; opens its state file."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = self._settings_at_start = settings
        self.state = State(settings.state)
        self.clock = SimulatedClock(self.state, settings.speed)
        self.ledger = Ledger(self.state, self.clock)
        self.catalog = Catalog(self.state, self.clock)
        self.shelf = Shelf(self.state, self.clock)
        self.jobs = JobBook(self.state, self.clock)
        self.worker = Worker(self)
        self.job_events = JobEvents(self)
        self.faults = FaultQueue(self.state)
        self.postman = Postman(self)
        self.attendant = Attendant(self)
        self.transports: Transports = {}
        self.requests: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.predictions: dict[str, dict[str, Any]] = {}
        self.limits = new_limits()
        self.job_limits = new_job_limits()
        fresh = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
        self.webhook_secret = self.state.fact("webhook_secret", fresh)

    def change(self, changes: dict[str, Any]) -> SimulatorSettings:
        """Change settings at run time. The state folder cannot move; speed takes effect from now on."""
        if "state" in changes:
            raise ValueError(
                "the state folder is fixed at the start: stop the simulator and start it with another"
            )
        self.settings = self.settings.changed(changes)
        self.clock.set_speed(self.settings.speed)
        return self.settings

    def reset(self) -> None:
        """Forget trainings, jobs, models, files, faults and counts; settings and time are again those of the start."""
        self.state.clear()
        self.clock.restart()
        self.catalog.add_trainers()
        self.requests.clear()
        self.happened.clear()
        self.predictions.clear()
        self.limits = new_limits()
        self.job_limits = new_job_limits()
        self.settings = self._settings_at_start
        self.clock.set_speed(self.settings.speed)
