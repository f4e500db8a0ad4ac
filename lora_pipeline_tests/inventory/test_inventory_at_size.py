"""Many objects on a real S3 server, and processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion, UserModel, VersionAlias
from lora_pipeline.inventory.bucket_inventory import UNBOUNDED
from lora_pipeline.inventory.bucket_pass import InventoryAtWork
from lora_pipeline.inventory.bucket_report import InventoryReport
from lora_pipeline_tests.bench.s3_listing_server import MemoryBucket
from lora_pipeline_tests.fixtures.pipeline import add_model
from lora_pipeline_tests.fixtures.s3 import S3Server
from lora_pipeline_tests.inventory.buckets import TestBucket, lora, s3_client, settings_for
from lora_pipeline_tests.versions.registered import NOW

# Putting thousands of objects over HTTP takes moto a minute: its own backend takes them at once.
_SERVER = """
import sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from lora_pipeline_tests.inventory.buckets import lora
from lora_pipeline_tests.inventory.test_inventory_at_size import BUCKET, job_of, key_of
backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
backend.create_bucket(BUCKET, "us-east-1")
for number in range(int(sys.argv[1])):
    stored = backend.put_object(BUCKET, key_of(number), lora(number))
    if number % 3 == 0:
        stored.set_metadata({"x-amz-meta-runpod_job_id": job_of(number)})
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)
sys.stdin.read()
"""
BUCKET = "many-loras"


def key_of(number: int) -> str:
    """Neighbours in number are none in the listing."""
    return f"loras/style {number * 7919 % 1000:03}/{number:05} ü+%.safetensors"


def job_of(number: int) -> str:
    return f"{number:08x}-012c-4384-ae6c-4b19c126d093-e1"


@contextmanager
def full_server(count: int) -> Iterator[S3Server]:
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield S3Server(process.stdout.readline().strip())
        finally:
            process.stdin.close()


def register(database: Database, count: int) -> None:
    """Of each three files one has its job in its metadata, one is known by its address, and one by nothing."""
    model_id = add_model(database, "style_1")
    with database.begin() as session:
        model = session.get_one(UserModel, model_id)
        for number in range(count):
            if number % 3 == 2:
                continue
            url = f"https://s3-accelerate.amazonaws.com/{BUCKET}/{key_of(number).replace('%', '%25').replace('+', '%2B')}"
            version = ModelVersion(
                model_id=model_id,
                number=number + 1,
                provider="runpod",
                weights_url=url if number % 3 == 1 else None,
                trigger_word=model.trigger_word,
                created_at=NOW,
                updated_at=NOW,
            )
            session.add(version)
            session.flush()
            alias = f"runpod:{job_of(number)}"
            session.add(VersionAlias(kind="training_id", alias=alias, version_id=version.id, created_at=NOW))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.deep)])
def test_every_object_is_seen_read_attached_and_followed(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    register(sqlite_database, count)
    url = sqlite_database.url.render_as_string(hide_password=False)
    with full_server(count) as server:
        for name, value in {**server.env, "AWS_ENDPOINT_URL": server.endpoint_url}.items():
            monkeypatch.setenv(name, value)
        connections = Connections(settings_for(tmp_path, url, BUCKET))
        bucket = TestBucket(BUCKET, s3_client(server), connections)
        known = sum(number % 3 != 2 for number in range(count))

        report = bucket.take(budget=UNBOUNDED)

        assert (report.counts.files, report.counts.new, report.read) == (count, count, count)
        assert (report.standings["attached"], report.standings["unregistered"]) == (known, count - known)
        assert len({row.content for row in attached(connections.database)}) == known
        for number in range(0, count, 20):
            bucket.put(key_of(number), lora(count + number))
            bucket.delete(key_of(number + 1))
        report = bucket.take(budget=UNBOUNDED)
        changed = len(range(0, count, 20))
        counts = report.counts
        assert (counts.files, counts.new, counts.changed) == (count - changed, 0, changed)
        assert (counts.overwritten, counts.deleted, report.read) == (changed, changed, changed)
        report = bucket.take()
        assert (report.read, report.counts.new, report.counts.changed, report.counts.deleted) == (0, 0, 0, 0)
        connections.database.close()


class _Attached:
    def __init__(self, content: int, version: int) -> None:
        self.content, self.version = content, version


def attached(database: Database) -> list[_Attached]:
    """The content of each version, where each was given the file of its own number."""
    with database.read() as session:
        versions = session.query(ModelVersion).filter(ModelVersion.artifact_id.is_not(None)).all()
    for version in versions:
        assert key_of(version.number - 1) in str(version.weights_url)
    return [_Attached(int(version.artifact_id or 0), version.id) for version in versions]


@pytest.mark.deep
def test_a_killed_process_loses_nothing_and_the_next_one_completes(
    memory_bucket: tuple[MemoryBucket, TestBucket],
) -> None:
    held, bucket = memory_bucket
    for seed in range(12):
        held.put(f"{seed:02}.safetensors", lora(seed))
    settings = bucket.connections.settings
    environment = os.environ | {
        "LORA_HOME": str(settings.home),
        "LORA_INVENTORY": settings.inventory,
        "LORA_LEASE": "1",
        "DATABASE_URL": str(settings.database_url),
    }
    for behind in ("03", "07"):
        child = subprocess.Popen(
            [sys.executable, "-m", "lora_pipeline.cli.main", "inventory", "--apply", "--json"],
            env=environment,
            stdout=subprocess.DEVNULL,
        )

        def kill(after: str, behind: str = behind, process: subprocess.Popen[bytes] = child) -> bool:
            if after.startswith(behind):
                os.kill(process.pid, signal.SIGKILL)
            return False

        held.fails = kill
        assert child.wait(60) == -signal.SIGKILL
        assert all(row.listed and row.state == "waiting" for row in bucket.rows())
    held.fails = lambda _: False
    assert len(bucket.rows()) == 8, "the second went on where the first was killed"
    assert once_the_lease_ran_out(bucket).is_whole
    assert {row.state for row in bucket.rows()} == {"unregistered"}
    assert len(bucket.rows()) == len(bucket.locations()) == 12


def once_the_lease_ran_out(bucket: TestBucket) -> InventoryReport:
    """A killed process leaves its lease, which ends by the clock."""
    end = time.monotonic() + 30
    while True:
        try:
            return bucket.take()
        except InventoryAtWork:
            assert time.monotonic() < end
            time.sleep(0.05)
