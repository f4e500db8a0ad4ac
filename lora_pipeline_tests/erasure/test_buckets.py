"""Erasing where the store is a bucket: no older version of anything is left, and the inventory brings nobody back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ArtifactLocation, InventoryObject, ModelVersion
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline.erasure.receipts import receipt
from lora_pipeline.erasure.removing import Remover
from lora_pipeline.inventory.bucket_inventory import take_inventory
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.erasure.lives import (
    KEY,
    USER,
    drop_user,
    found_in_database,
    found_in_store,
    traces,
    train,
)
from lora_pipeline_tests.fixtures.s3 import S3Server
from lora_pipeline_tests.inventory.buckets import s3_client


def keep_versions(server: S3Server, bucket: str) -> None:
    s3_client(server).put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def versions_in(server: S3Server, bucket: str) -> list[str]:
    page = s3_client(server).list_object_versions(Bucket=bucket)
    return [one["Key"] for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]


@pytest.mark.parametrize("versioned", [True, False])
def test_an_object_goes_with_every_version_and_its_neighbours_stay(aws: S3Server, versioned: bool) -> None:
    bucket = aws.create_bucket()
    if versioned:
        keep_versions(aws, bucket)
    store = aws.open(bucket, "some/prefix")
    for content in (b"old", b"new"):
        for key in ("users/1/a b+c", "users/1/a b+cd", "users/10/a"):
            store.put_bytes(key, content)
    store.delete("users/1/a b+cd")
    remover = Remover(store)
    assert sorted(remover.lying_in("users/1")) == sorted(
        store.address(key)
        for key in ("users/1/a b+c", "users/1/a b+cd")
        if versioned or not key.endswith("d")
    )
    assert remover.delete(store.address("users/1/a b+c"))
    assert not remover.delete(store.address("users/1/a b+c"))
    left = {key.removeprefix("some/prefix/") for key in versions_in(aws, bucket)}
    assert left == ({"users/1/a b+cd", "users/10/a"} if versioned else {"users/10/a"})


@pytest.fixture
def in_a_bucket(
    aws: S3Server, database: Database, simulator: RunningSimulator, tmp_path: Path
) -> Iterator[tuple[Connections, str]]:
    """An installation whose store is a bucket that keeps versions."""
    simulator.settings(deletion_s=0)
    bucket = aws.create_bucket()
    keep_versions(aws, bucket)
    connections = Connections(
        Settings(
            home=tmp_path / "home",
            database_url=database.url.render_as_string(hide_password=False),
            object_store=f"s3://{bucket}/lora",
            replicate_api_token=SecretStr("r8_test"),
            replicate_base_url=simulator.url,
            image_profile="demo",
            ready_images=5,
            ready_quiet=timedelta(0),
        )
    )
    yield connections, bucket
    connections.database.close()


@pytest.mark.deep
def test_no_version_of_any_object_is_left_and_the_inventory_brings_nobody_back(
    in_a_bucket: tuple[Connections, str], aws: S3Server, simulator: RunningSimulator
) -> None:
    connections, bucket = in_a_bucket
    drop_user(connections)
    train(connections, simulator)
    take_inventory(connections)
    gone = traces(connections)
    with connections.database.read() as session:
        address = str(session.query(ModelVersion).one().weights_url)
        assert session.query(InventoryObject).count() == 1
    weights = connections.store.get_bytes(str(connections.store.key_of(address)))
    connections.store.put_bytes(gone.originals[0], b"written again")

    erasure_id, _ = begin_erasure(connections, USER, "test")
    assert carry_out(connections, erasure_id, forget_partition=lambda _: True).completed
    assert versions_in(aws, bucket) == []
    assert found_in_store(connections, gone) == []
    assert found_in_database(connections, gone.names | gone.jobs) == set()

    # Somebody's backup puts the file back.
    connections.store.put_bytes("loras/elsewhere/copy.safetensors", weights)
    take_inventory(connections)
    with connections.database.read() as session:
        row = session.query(InventoryObject).one()
        assert session.query(ModelVersion).count() == 0
        assert row.state == "refused"
        assert "erased on" in row.reason
        assert KEY not in row.reason
        assert receipt(session, erasure_id)["state"] == "completed"


@pytest.mark.deep
def test_copies_in_another_bucket_go_too_and_what_cannot_be_deleted_is_told(
    in_a_bucket: tuple[Connections, str], aws: S3Server, simulator: RunningSimulator
) -> None:
    connections, _ = in_a_bucket
    drop_user(connections)
    train(connections, simulator)
    other = aws.create_bucket()
    aws.open(other).put_bytes("backup/lora.safetensors", b"a copy")
    with connections.database.begin() as session:
        version = session.query(ModelVersion).one()
        for namespace, bucket in (("s3/aws", other), ("gs", "elsewhere")):
            session.add(
                ArtifactLocation(
                    artifact_id=version.artifact_id,
                    namespace=namespace,
                    bucket=bucket,
                    key="backup/lora.safetensors",
                    size=6,
                    first_seen=connections.now(),
                    last_seen=connections.now(),
                )
            )
    erasure_id, _ = begin_erasure(connections, USER, "test")
    carried = carry_out(connections, erasure_id, forget_partition=lambda _: True)
    assert carried.completed
    assert versions_in(aws, other) == []
    with connections.database.read() as session:
        (stays,) = receipt(session, erasure_id)["stays"]
    assert stays["what"] == "weights"
    assert "it lies where this installation cannot delete" in stays["why"]
