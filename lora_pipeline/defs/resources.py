"""The one resource: what operations need from outside, as the settings say."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import dagster as dg

from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings


class Pipeline(dg.ConfigurableResource[Connections]):
    """Connections made from the environment; `overrides` (setting name → value) is for tests."""

    overrides: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults

    @property
    def connections(self) -> Connections:
        """One set of connections a process, so that a tick does not open the database anew."""
        return _connections(json.dumps(self.overrides, sort_keys=True))


@lru_cache(maxsize=8)
def _connections(overrides: str) -> Connections:
    return Connections(Settings(**json.loads(overrides)))
