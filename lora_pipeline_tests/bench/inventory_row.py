"""The inventory of a bucket in which nothing changed, against a bare boto3 listing of the same server.

Ours is a whole run: the lease, the listing held against what is stored, what is thought over, and the report. Each run
is a process of its own, so that peak memory is that run's. The server holds the bucket in memory and answers at once:
what is measured is the client's work, which a real network only hides. boto3 by itself spends more than half of that
on reading times, which our client does faster: what a listing by our client alone takes is told beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy import text

from lora_pipeline.connections import Connections
from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import UserModel
from lora_pipeline.inventory.bucket_client import Buckets
from lora_pipeline.inventory.bucket_inventory import inventory_places, take_inventory
from lora_pipeline.inventory.bucket_pass import list_place
from lora_pipeline.settings import Settings
from lora_pipeline_tests.bench.resolve_row import _postgres, _sqlite
from lora_pipeline_tests.bench.rows import BenchRow
from lora_pipeline_tests.bench.s3_listing_server import BUCKET
from lora_pipeline_tests.bench.zip_row import _memory
from lora_pipeline_tests.fixtures.pipeline import add_model

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000), (1_000, 2_000, 4_000)
PAIRS = 3
SPEED_BUDGET = 0.9
FLAT_MB = 10.0
"""What the peak may grow by between the smallest and the largest bucket: one page of a listing is about 4 MB."""


class Measured(NamedTuple):
    """One run."""

    seconds: float
    megabytes: float
    """At the peak, above idle."""


class Curve(NamedTuple):
    """The runs over one kind of bucket, by its size."""

    name: str
    own_client: Measured
    """The largest bucket listed by our client, and nothing else."""
    pairs: dict[int, list[tuple[Measured, Measured]]]
    """Size → pairs of a bare listing and ours."""

    def median(self, size: int) -> tuple[Measured, Measured]:
        pairs = sorted(self.pairs[size], key=lambda pair: pair[0].seconds / pair[1].seconds)
        return pairs[len(pairs) // 2]


def run(quick: bool) -> list[BenchRow]:
    """Objects and object versions on SQLite, objects on PostgreSQL."""
    sizes = QUICK_SIZES if quick else SIZES
    rows: list[BenchRow] = []
    with TemporaryDirectory(prefix="lora-bench-") as folder:
        for name, opened, versions in (
            ("objects, SQLite", _sqlite, False),
            ("object versions, SQLite", _sqlite, True),
            ("objects, PostgreSQL", _postgres, False),
        ):
            own = Path(folder) / name.rpartition(" ")[2] / str(len(rows))
            own.mkdir(parents=True)
            with opened(own) as database:
                rows += _rows(
                    _measure(name, database, sizes, versions=versions, rounds=1 if quick else PAIRS)
                )
    return rows


def _rows(curve: Curve) -> list[BenchRow]:
    smallest, largest = min(curve.pairs), max(curve.pairs)
    bare, ours = curve.median(largest)
    ratio = bare.seconds / ours.seconds
    per_object = ", ".join(
        f"{size:,}: {1e6 * curve.median(size)[1].seconds / size:.0f} µs" for size in curve.pairs
    )
    peaks = {size: max(mine.megabytes for _, mine in pairs) for size, pairs in curve.pairs.items()}
    grown = peaks[largest] - peaks[smallest]
    return [
        BenchRow(
            f"inventory of {largest:,} {curve.name}: nothing changed",
            f"{largest / ours.seconds:,.0f} a second ({ours.seconds:.1f} s)",
            f"bare boto3 listing {largest / bare.seconds:,.0f} a second",
            ratio,
            f"≥ {SPEED_BUDGET} × the bare rate",
            ok=ratio >= SPEED_BUDGET,
            note=f"an object, at three sizes: {per_object}; median of {len(curve.pairs[largest])} pairs by turns; a "
            f"listing by our client and nothing else: {largest / curve.own_client.seconds:,.0f} a second",
        ),
        BenchRow(
            f"peak memory of it, from {smallest:,} to {largest:,} {curve.name}",
            f"{peaks[largest]:.1f} MB over idle",
            f"bare listing {bare.megabytes:.1f} MB",
            None,
            f"flat: grows by ≤ {FLAT_MB:.0f} MB",
            ok=grown <= FLAT_MB,
            note="MB: " + ", ".join(f"{size:,}: {peak:.1f}" for size, peak in peaks.items()),
        ),
    ]


def _measure(name: str, database: Database, sizes: tuple[int, ...], *, versions: bool, rounds: int) -> Curve:
    url = database.url.render_as_string(hide_password=False)
    pairs: dict[int, list[tuple[Measured, Measured]]] = {}
    bare = "versions" if versions else "objects"
    for size in sizes:
        with _server(size, versions=versions) as endpoint:
            environment = os.environ | _environment(endpoint) | {"DATABASE_URL": url}
            _remember(database, environment)
            # By turns: the machine is in the same mood for both.
            pairs[size] = [
                (_child(bare, environment), _child("inventory", environment)) for _ in range(rounds)
            ]
            own_client = _child(f"own {bare}", environment)
    return Curve(name, own_client, pairs)


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
        "LORA_INVENTORY": f"s3://{BUCKET}/loras",
    }


def _remember(database: Database, environment: dict[str, str]) -> None:
    """Bring the registry to where nothing has changed: everything listed, read, and in its place."""
    upgrade(database)
    settings = Settings(inventory=environment["LORA_INVENTORY"])
    connections = Connections(settings)
    buckets = Buckets(environment)
    for place in inventory_places(connections):
        assert list_place(database, buckets, place, connections.now, lambda: True).is_complete
    with database.read() as session:
        is_first = session.query(UserModel).first() is None
    if is_first:
        add_model(database)
    with database.begin() as session:
        for statement in _ATTACHED:
            session.execute(text(statement))
    if database.dialect == "postgresql":
        # What autovacuum would do in the minutes after such a load.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


_ATTACHED = (
    """
    INSERT INTO artifacts (content_key, file_sha256, autov2, autov3, size, tensor_count, header_metadata, created_at)
    SELECT 'content ' || id, 'file ' || id, '', '', size, 1, '{}', first_seen FROM inventory_objects
    WHERE artifact_id IS NULL
    """,
    """
    UPDATE inventory_objects SET state = 'attached', decided_at = first_seen,
        artifact_id = (SELECT a.id FROM artifacts a WHERE a.content_key = 'content ' || inventory_objects.id)
    WHERE artifact_id IS NULL
    """,
    """
    INSERT INTO artifact_locations
        (artifact_id, namespace, bucket, key, object_version, etag, size, first_seen, last_seen)
    SELECT o.artifact_id, o.namespace, o.bucket, o.key, o.object_version, o.etag, o.size, o.first_seen, o.first_seen
    FROM inventory_objects o LEFT JOIN artifact_locations l ON l.artifact_id = o.artifact_id
    WHERE l.id IS NULL
    """,
    # A file whose version is not there would be thought over again.
    """
    INSERT INTO model_versions (model_id, number, artifact_id, provider, weights_state, trigger_word, lora_scale,
        parameters, provenance, created_at, updated_at)
    SELECT (SELECT id FROM user_models), id, artifact_id, 'replicate', 'verified', 'bench', 1.0, '{}', '{}', first_seen, first_seen
    FROM inventory_objects WHERE version_id IS NULL
    """,
    """
    UPDATE inventory_objects
    SET version_id = (SELECT v.id FROM model_versions v WHERE v.artifact_id = inventory_objects.artifact_id)
    WHERE version_id IS NULL
    """,
)


@contextmanager
def _server(size: int, *, versions: bool) -> Iterator[str]:
    command = [sys.executable, "-m", "lora_pipeline_tests.bench.s3_listing_server", str(size)]
    with subprocess.Popen(
        [*command, "versions"] if versions else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def _child(kind: str, environment: dict[str, str]) -> Measured:
    command = [sys.executable, "-m", "lora_pipeline_tests.bench.inventory_row", kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return Measured(*json.loads(done.stdout))


def _main(kind: str) -> None:
    """One run, in this process; prints Measured as JSON."""
    import boto3

    connections = Connections(Settings())
    (place,) = inventory_places(connections)
    client = Buckets()[BUCKET]._client if kind.startswith(("own", "inventory")) else boto3.client("s3")
    client.list_objects_v2(
        Bucket=BUCKET, Prefix=place.prefix
    )  # connections and models are part of being idle
    with connections.database.read() as session:
        session.execute(text("SELECT 1"))
    idle, started = _memory("VmRSS"), time.perf_counter()
    if kind == "inventory":
        report = take_inventory(connections)
        seen, changed = report.counts.files, report.counts.new + report.counts.deleted + report.read
        assert (changed, report.has_findings) == (0, False), report
    elif kind.endswith("objects"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=place.prefix)
        seen = sum(len(page["Contents"]) for page in pages)
    else:
        versions = client.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=place.prefix)
        seen = sum(len(page["Versions"]) for page in versions)
    assert seen
    print(json.dumps([time.perf_counter() - started, _memory("VmHWM") - idle]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
