"""Buckets for the inventory's tests: LoRA files on a real S3 server, and what the registry knows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ArtifactLocation, InventoryObject, ReviewItem
from lora_pipeline.inventory.bucket_inventory import take_inventory
from lora_pipeline.inventory.bucket_report import InventoryReport
from lora_pipeline.settings import Settings
from lora_pipeline.versions.weights import VerifiedWeights
from lora_pipeline_tests.bench.s3_listing_server import MemoryBucket, serving
from lora_pipeline_tests.fixtures.s3 import S3Server
from lora_pipeline_tests.versions.lora_files import diffusers_lora, inspected, saved

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def lora(seed: int = 0, **metadata: str) -> bytes:
    """A small LoRA file; another one for each seed."""
    return saved(diffusers_lora(rank=1, layers=1, width=2, seed=seed), metadata or None)


def content_of(file: bytes) -> VerifiedWeights:
    return inspected(file)


@dataclass
class TestBucket:
    """A bucket of its own on the S3 server, and the inventory of it."""

    __test__ = False

    name: str
    s3: S3Client
    connections: Connections
    versions: dict[str, list[str]] = field(default_factory=dict)
    """Key → object versions that were put there, the oldest first."""

    @property
    def database(self) -> Database:
        return self.connections.database

    def put(self, key: str, file: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Store an object; its address."""
        answer = self.s3.put_object(Bucket=self.name, Key=key, Body=file, Metadata=metadata or {})
        self.versions.setdefault(key, []).append(answer.get("VersionId", ""))
        return f"s3://{self.name}/{key}"

    def delete(self, key: str, **version: str) -> None:
        self.s3.delete_object(Bucket=self.name, Key=key, **version)  # type: ignore[arg-type]

    def keep_versions(self) -> None:
        self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def take(self, **options: Any) -> InventoryReport:
        """Take the inventory."""
        return take_inventory(self.connections, **options)

    def rows(self) -> list[InventoryObject]:
        """Every file that was ever seen, by key and first sight."""
        with self.database.read() as session:
            found = session.query(InventoryObject).all()
        return sorted(found, key=lambda row: (row.key, row.id))

    def row(self, key: str) -> InventoryObject:
        """The file that the key leads to, as it is stored."""
        (found,) = [
            row
            for row in self.rows()
            if row.key == key and row.listed and row.overwritten_at is None and row.deleted_at is None
        ]
        return found

    def standings(self) -> dict[str, str]:
        """Key → where its file stands, for all that the bucket still shows."""
        return {row.key: row.state for row in self.rows() if row.listed}

    def standing(self, key: str) -> str:
        return self.row(key).state

    def locations(self) -> list[ArtifactLocation]:
        with self.database.read() as session:
            found = session.query(ArtifactLocation).filter_by(bucket=self.name).all()
        return sorted(found, key=lambda row: (row.key, row.id))

    def reviews(self) -> list[ReviewItem]:
        with self.database.read() as session:
            return session.query(ReviewItem).order_by(ReviewItem.id).all()


@pytest.fixture
def aws(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The environment leads to the S3 server."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    return s3_server


def s3_client(server: S3Server) -> S3Client:
    """boto3 by itself, for putting things where others would."""
    from lora_pipeline.inventory.bucket_client import _client

    env = server.env
    return _client(
        server.endpoint_url,
        env["AWS_REGION"],
        env["AWS_ACCESS_KEY_ID"],
        env["AWS_SECRET_ACCESS_KEY"],
        None,
        None,
    )


def settings_for(home: Path, database_url: str, bucket: str, **more: Any) -> Settings:
    """Settings of an installation whose inventory is this bucket."""
    return Settings(home=home, database_url=database_url, inventory=f"s3://{bucket}", **more)


@contextmanager
def opened_bucket(server: S3Server, database_url: str, home: Path, **settings: Any) -> Iterator[TestBucket]:
    name = server.create_bucket()
    connections = Connections(settings_for(home, database_url, name, **settings))
    try:
        yield TestBucket(name, s3_client(server), connections)
    finally:
        connections.database.close()


@pytest.fixture
def bucket(aws: S3Server, sqlite_database: Database, tmp_path: Path) -> Iterator[TestBucket]:
    """An empty bucket that the inventory lists whole."""
    url = sqlite_database.url.render_as_string(hide_password=False)
    with opened_bucket(aws, url, tmp_path / "home") as found:
        yield found


@pytest.fixture
def bucket_on_each(aws: S3Server, database_address: str, tmp_path: Path) -> Iterator[TestBucket]:
    """The same, once on SQLite and once on PostgreSQL."""
    with opened_bucket(aws, database_address, tmp_path / "home") as found:
        yield found


@pytest.fixture
def memory_bucket(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[MemoryBucket, TestBucket]]:
    """A bucket whose server can fail, two keys a page, and the inventory of it."""
    held = MemoryBucket(page=2)
    url = sqlite_database.url.render_as_string(hide_password=False)
    with serving(held) as endpoint:
        server = S3Server(endpoint)
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        connections = Connections(settings_for(tmp_path / "home", url, "memory"))
        yield held, TestBucket("memory", s3_client(server), connections)
        connections.database.close()
