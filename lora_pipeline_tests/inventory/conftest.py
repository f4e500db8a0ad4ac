"""The command line's fixtures, for the commands of this area, and databases that are not ours."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from lora_pipeline_tests.cli.conftest import home, run
from lora_pipeline_tests.fixtures.databases import _named

__all__ = ["home", "new_postgres_database", "run"]


@pytest.fixture
def new_postgres_database(postgres_server: str) -> Callable[[str], str]:
    """Makes an empty database of about this name; its URL."""
    return lambda name: _named(postgres_server, f"{name}_{uuid.uuid4().hex[:8]}")
