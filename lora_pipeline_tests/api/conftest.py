"""A running server with everything behind it, and its clients."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from lora_pipeline.connections import Connections
from lora_pipeline_tests.api.serving import key_for, serving, with_key


@pytest.fixture
def anyone(connections: Connections) -> Iterator[httpx.Client]:
    """A client without a key."""
    with serving(connections) as client:
        yield client


@pytest.fixture
def anna(connections: Connections, anyone: httpx.Client) -> Iterator[httpx.Client]:
    """A client with the key of the user `42`."""
    with with_key(anyone, key_for(connections, "42")) as client:
        yield client


@pytest.fixture
def admin(connections: Connections, anyone: httpx.Client) -> Iterator[httpx.Client]:
    """A client with an administrator's key."""
    with with_key(anyone, key_for(connections, None)) as client:
        yield client
