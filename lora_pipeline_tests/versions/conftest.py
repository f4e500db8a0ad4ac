"""Connections to a real database, a real store and the simulated provider, spoken to by the real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator


def connect_to(address: str, home: Path, simulator_url: str) -> Connections:
    return Connections(
        Settings(
            home=home,
            database_url=address,
            replicate_api_token="r8_test",
            replicate_base_url=simulator_url,
        )
    )


@pytest.fixture
def connections(database_address: str, tmp_path: Path, simulator: RunningSimulator) -> Iterator[Connections]:
    """On SQLite, then on PostgreSQL."""
    found = connect_to(database_address, tmp_path / "home", simulator.url)
    yield found
    found.database.close()


@pytest.fixture
def on_sqlite(sqlite_template: Path, tmp_path: Path, simulator: RunningSimulator) -> Iterator[Connections]:
    """On SQLite alone, for what does not touch the dialect."""
    path = tmp_path / "only.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    found = connect_to(f"sqlite:///{path}", tmp_path / "home", simulator.url)
    yield found
    found.database.close()
