"""Users who lived, the command line, and buckets on an S3 server."""

from __future__ import annotations

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.cli.conftest import home, run
from lora_pipeline_tests.erasure.lives import (
    EMAIL,
    FILE,
    KEY,
    OTHERS_FILE,
    USER,
    Traces,
    add_bookkeeping,
    drop_user,
    found_in_database,
    traces,
    train,
)
from lora_pipeline_tests.fixtures.s3 import s3_server
from lora_pipeline_tests.inventory.buckets import aws, bucket

__all__ = ["aws", "bucket", "home", "lived", "run", "s3_server"]


@pytest.fixture
def lived(connections: Connections, simulator: RunningSimulator) -> Traces:
    """Two users with the same photographs, trained and served; what the one of them is known by."""
    simulator.settings(deletion_s=0)
    drop_user(connections)
    drop_user(connections, "user-50", "other", "other@example.org", OTHERS_FILE)
    train(connections, simulator)
    add_bookkeeping(connections)
    found = traces(connections)
    assert found_in_database(connections, [EMAIL, FILE, USER, KEY])
    return found
