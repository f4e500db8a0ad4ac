"""One simulated provider: its parts put together, and nothing else. The HTTP faces work on this object."""

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
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.shelf import Shelf
from lora_pipeline.simulator.state import State


class Simulator:
    """State, time and settings of a running simulator. Made once by `create_app`; opens its state file."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.state = State(settings.state)
        self.clock = SimulatedClock(self.state, settings.speed)
        self.ledger = Ledger(self.state, self.clock)
        self.catalog = Catalog(self.state, self.clock)
        self.shelf = Shelf(self.state, self.clock)
        self.faults = FaultQueue(self.state)
        self.attendant = Attendant(self)
        self.transports: Transports = {}
        self.requests: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
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
