"""The command line's fixtures, for the commands of this area, buckets on S3 servers, and databases that are not ours."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from lora_pipeline_tests.cli.conftest import home, run
from lora_pipeline_tests.fixtures.databases import _named
from lora_pipeline_tests.fixtures.s3 import s3_server
from lora_pipeline_tests.inventory.buckets import aws, bucket, bucket_on_each, memory_bucket

__all__ = [
    "aws",
    "bucket",
    "bucket_on_each",
    "home",
    "memory_bucket",
    "new_postgres_database",
    "run",
    "s3_server",
]


@pytest.fixture
def new_postgres_database(postgres_server: str) -> Callable[[str], str]:
    """Makes an empty database of about this name; its URL."""
    return lambda name: _named(postgres_server, f"{name}_{uuid.uuid4().hex[:8]}")
