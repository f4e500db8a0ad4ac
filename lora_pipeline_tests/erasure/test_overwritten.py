"""Erasing whose weights lay where other bytes lie now: those are not deleted, and the user's own ones are."""

from __future__ import annotations

import pytest

from lora_pipeline.database.tables import InventoryObject, ModelVersion
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure, look
from lora_pipeline.erasure.plan import OVERWRITTEN, ErasurePlan
from lora_pipeline.image_sets.models import ModelDescription, ensure_model
from lora_pipeline.inventory.registering import register_found
from lora_pipeline_tests.inventory.buckets import TestBucket, lora

KEY = "shared folder/lora +ü.safetensors"
USER = "user-50c"


def register(bucket: TestBucket, *addresses: str, user: str = USER) -> None:
    described = ModelDescription(model_type="person", user_id=user)
    register_found(bucket.connections, f"{user}-model", addresses, actor="test", described=described)


def erase(bucket: TestBucket) -> ErasurePlan:
    erasure_id, plan = begin_erasure(bucket.connections, USER, "test")
    assert plan is not None
    assert carry_out(bucket.connections, erasure_id, forget_partition=lambda _: True).completed
    return plan


def lying(bucket: TestBucket) -> list[str]:
    """Versions that are left, `null` where none are kept."""
    page = bucket.s3.list_object_versions(Bucket=bucket.name)
    return [one["VersionId"] for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))]


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("other", ["nobody's", "another user's", "unread"])
def test_what_lies_there_now_stays_and_the_users_own_version_goes(
    bucket: TestBucket, other: str, versioned: bool
) -> None:
    if versioned:
        bucket.keep_versions()
    address = bucket.put(KEY, lora(1))
    bucket.take()
    register(bucket, address)
    bucket.put(KEY, lora(2))
    if other == "another user's":
        copy = bucket.put("copy.safetensors", lora(2))
        bucket.take()
        register(bucket, copy, user="user-60d")
    bucket.take()
    if other == "unread":
        with bucket.database.begin() as session:
            row = session.query(InventoryObject).filter_by(overwritten_at=None).one()
            row.state, row.artifact_id = "waiting", None

    plan = erase(bucket)

    assert [(item.target, item.stays) for item in plan.staying] == [(address, OVERWRITTEN)]
    assert len([item for item in plan.going if item.kind == "weights"]) == (1 if versioned else 0)
    page = bucket.s3.list_object_versions(Bucket=bucket.name, Prefix=KEY)
    assert [one["VersionId"] for one in page["Versions"]] == [bucket.versions[KEY][1] or "null"]
    assert bucket.s3.get_object(Bucket=bucket.name, Key=KEY)["Body"].read() == lora(2)
    assert not bucket.take().failures
    with bucket.database.read() as session:
        assert session.query(ModelVersion).count() == (1 if other == "another user's" else 0)


def test_a_copy_behind_a_deletion_marker_goes_too(bucket: TestBucket) -> None:
    bucket.keep_versions()
    address, copy = bucket.put(KEY, lora(1)), bucket.put("copy.safetensors", lora(1))
    bucket.take()
    register(bucket, address, copy)
    bucket.delete("copy.safetensors")
    bucket.take()
    assert [item.target for item in erase(bucket).going if item.kind == "weights"] == [copy, address]
    assert lying(bucket) == []


def test_older_versions_that_nobody_registered_go_with_the_users_own(bucket: TestBucket) -> None:
    bucket.keep_versions()
    bucket.put(KEY, lora(1))
    address = bucket.put(KEY, lora(2))
    bucket.take()
    register(bucket, address)
    erase(bucket)
    assert lying(bucket) == []


def test_an_older_version_of_another_user_stays(bucket: TestBucket) -> None:
    bucket.keep_versions()
    bucket.put(KEY, lora(1))
    bucket.take()
    register(bucket, f"s3://{bucket.name}/{KEY}", user="user-60d")
    bucket.put("mine.safetensors", lora(2))
    bucket.take()
    register(bucket, f"s3://{bucket.name}/mine.safetensors")
    bucket.put(KEY, lora(2))
    bucket.take()
    erase(bucket)
    assert lying(bucket) == [bucket.versions[KEY][0]]


def test_an_address_that_nobody_read_yet_is_the_users(bucket: TestBucket) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    now = bucket.connections.now()
    with bucket.database.begin() as session:
        described = ModelDescription(user_id=USER)
        model = ensure_model(session, "user-50c-model", described, now)
        version = ModelVersion(model_id=model.id, number=1, provider="runpod", weights_url=address)
        version.weights_state, version.trigger_word, version.lora_scale = "unverified", "w", 1.0
        version.created_at = version.updated_at = now
        session.add(version)
    found = look(bucket.connections, USER)
    assert isinstance(found, ErasurePlan)
    assert [item.target for item in found.going if item.kind == "weights"] == [address]
