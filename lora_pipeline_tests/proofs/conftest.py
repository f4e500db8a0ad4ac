"""A database in memory for the proofs, put back to empty for each new world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_pipeline_tests.proofs.schedules import Setting, memory_database, memory_of, world_of
from lora_pipeline_tests.proofs.steps import SteppedDatabase
from lora_pipeline_tests.proofs.world import OURS, Operations, World


@pytest.fixture(scope="session")
def proof_database(sqlite_template: Path) -> Iterator[tuple[SteppedDatabase, bytes]]:
    database, empty = memory_database(sqlite_template)
    yield database, empty
    database.close()


@pytest.fixture
def new_world(proof_database: tuple[SteppedDatabase, bytes]) -> Callable[..., World]:
    """Makes a world in an empty database. One at a time: the next one takes the database over."""
    database, empty = proof_database

    def make(setting: Setting, operations: Operations = OURS) -> World:
        memory_of(database).deserialize(empty)
        database.steps.start_over()
        return world_of(setting, database, operations)

    return make
