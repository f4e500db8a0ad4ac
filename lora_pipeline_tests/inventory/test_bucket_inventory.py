"""The inventory on a real S3 server: what is seen, what is noticed, and what is left alone."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Base
from lora_pipeline.inventory.bucket_plan import plan_inventory
from lora_pipeline_tests.inventory.buckets import TestBucket, content_of, lora, settings_for
from lora_pipeline_tests.versions.lora_files import with_header
from lora_pipeline_tests.versions.registered import add_version

STRANGE_KEYS = [
    "loras/a b.safetensors",
    "loras/a+b.safetensors",
    "loras/a%20b.safetensors",
    "loras/größe/ä–é.safetensors",
    "loras//double.safetensors",
    "loras/../up.safetensors",
    "loras/a'b\"c&d<e>.safetensors",
    "loras/\U0001f600.SafeTensors",
    "/rooted.safetensors",
]


def rows(database: Database, *without: str) -> dict[str, list[dict[str, Any]]]:
    """Everything that is stored."""
    with database.read() as session:
        return {
            name: sorted((dict(row) for row in session.execute(select(table)).mappings()), key=repr)
            for name, table in Base.metadata.tables.items()
            if name not in without
        }


def test_every_key_that_s3_takes_is_listed_read_and_found_again(bucket_on_each: TestBucket) -> None:
    bucket = bucket_on_each
    for seed, key in enumerate(STRANGE_KEYS):
        bucket.put(key, lora(seed))
        url = f"https://{bucket.name}.s3.us-west-1.amazonaws.com/{quote(key)}"
        add_version(
            bucket.database,
            "style_1",
            seed + 1,
            weights_url=url,
            weights_state="unverified",
            provider="runpod",
            provider_version=None,
        )
    bucket.put("loras/preview.png", b"")

    report = bucket.take()

    assert (report.counts.files, report.counts.new, report.counts.others) == (len(STRANGE_KEYS),) * 2 + (1,)
    assert report.standings["attached"] == report.attached == len(STRANGE_KEYS)
    assert bucket.standings() == dict.fromkeys(STRANGE_KEYS, "attached")
    for seed, key in enumerate(STRANGE_KEYS):
        assert bucket.row(key).file_sha256 == hashlib.sha256(lora(seed)).hexdigest()
    again = bucket.take()
    assert (again.counts.files, again.counts.new, again.read) == (len(STRANGE_KEYS), 0, 0)


def test_where_nothing_changed_nothing_is_read_or_written(bucket: TestBucket) -> None:
    for seed in range(3):
        bucket.put(f"{seed}.safetensors", lora(seed))
        add_version(
            bucket.database, "style_1", seed + 1, weights_url=f"s3://{bucket.name}/{seed}.safetensors"
        )
    bucket.take()
    before = rows(bucket.database, "inventory_places", "controls")
    report = bucket.take()
    assert rows(bucket.database, "inventory_places", "controls") == before
    assert (report.read, report.bytes_hashed, report.has_findings) == (0, 0, False)
    assert report.next_step == "nothing to do"
    plan = plan_inventory(bucket.connections)
    assert (plan.has_findings, plan.to_read, plan.changes) == (False, 0, ())


def test_other_bytes_under_a_key_are_another_artifact_and_the_old_place_is_marked(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    address = bucket.put("style_1_vV7.safetensors", lora(1))
    version = add_version(bucket.database, "style_1", 7, weights_url=address, weights_state="unverified")
    bucket.take()
    before = rows(bucket.database)["model_versions"]

    bucket.put("style_1_vV7.safetensors", lora(2))
    report = bucket.take()

    assert (report.counts.changed, report.counts.overwritten, report.counts.deleted) == (1, 1, 0)
    old, new = bucket.rows()
    assert (old.listed, old.state, old.deleted_at) == (False, "attached", None)
    assert old.overwritten_at == new.modified
    assert (new.state, new.version_id) == ("doubtful", None)
    first, second = bucket.locations()
    assert (first.overwritten_at, first.deleted_at) == (new.modified, None)
    assert (second.overwritten_at, second.artifact_id != first.artifact_id) == (None, True)
    assert rows(bucket.database)["model_versions"] == before, "the version keeps what it is"
    assert {item.kind for item in bucket.reviews()} == {"overwritten_weights", "doubtful_object"}
    (lost,) = report.lost
    assert (lost.model, lost.version, lost.what) == ("style_1", "V7", "overwritten")
    assert version == old.version_id
    assert "rollback style_1" in report.next_step

    bucket.put("style_1_vV7.safetensors", lora(1))
    back = bucket.take()
    assert (back.read, back.lost, bucket.row("style_1_vV7.safetensors").id) == (0, (), old.id)
    assert [one.overwritten_at is None for one in bucket.locations()] == [True, False]


def test_a_deleted_object_is_noticed_and_nothing_of_it_is_deleted(bucket: TestBucket) -> None:
    address = bucket.put("a.safetensors", lora(1))
    add_version(bucket.database, "style_1", 1, weights_url=address, weights_state="unverified")
    bucket.put("b.safetensors", lora(2))
    bucket.take()
    before = rows(bucket.database)
    bucket.delete("a.safetensors")

    report = bucket.take()

    assert (report.counts.deleted, report.counts.overwritten, report.counts.files) == (1, 0, 1)
    (place,) = [one for one in bucket.locations() if one.key == "a.safetensors"]
    assert place.deleted_at is not None
    after = rows(bucket.database)
    for table in ("artifacts", "model_versions", "version_aliases", "lora_weights", "user_models"):
        assert after[table] == before[table]
    assert [(lost.address, lost.what) for lost in report.lost] == [(address, "deleted")]

    bucket.put("a.safetensors", lora(1))
    assert bucket.take().lost == ()
    assert [one.deleted_at for one in bucket.locations()] == [None, None]


def test_object_versions_tell_what_was_overwritten_deleted_removed_and_brought_back(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    bucket.put("before.safetensors", lora(0))
    bucket.keep_versions()
    for seed in (1, 2):
        bucket.put("key.safetensors", lora(seed))
    bucket.put("gone.safetensors", lora(3))
    bucket.delete("gone.safetensors")
    older, newest = bucket.versions["key.safetensors"]

    report = bucket.take()

    assert (report.counts.files, report.counts.older, report.read) == (2, 2, 4)
    seen = {(row.key, row.object_version): row for row in bucket.rows()}
    assert seen["before.safetensors", ""].state == "unregistered"
    assert seen["key.safetensors", older].overwritten_at == seen["key.safetensors", newest].modified
    assert seen["key.safetensors", newest].overwritten_at is None
    (gone,) = bucket.versions["gone.safetensors"]
    assert seen["gone.safetensors", gone].deleted_at is not None
    assert seen["gone.safetensors", gone].listed
    places = {(one.key, one.object_version): one for one in bucket.locations()}
    assert places["key.safetensors", older].overwritten_at is not None
    assert places["gone.safetensors", gone].deleted_at is not None

    marker = bucket.s3.list_object_versions(Bucket=bucket.name)["DeleteMarkers"][0]["VersionId"]
    bucket.delete("gone.safetensors", VersionId=marker)
    bucket.delete("key.safetensors", VersionId=newest)
    report = bucket.take()
    assert (report.read, report.counts.deleted, report.counts.files) == (0, 1, 3)
    places = {(one.key, one.object_version): one for one in bucket.locations()}
    assert places["gone.safetensors", gone].deleted_at is None
    assert places["key.safetensors", older].overwritten_at is None
    assert places["key.safetensors", newest].deleted_at is not None


def test_a_bucket_that_begins_to_keep_versions_does_not_make_its_files_new(bucket: TestBucket) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.take()
    bucket.keep_versions()
    report = bucket.take()
    assert (report.counts.new, report.counts.deleted, report.read) == (0, 0, 0)


def test_equal_times_hide_no_object(bucket: TestBucket) -> None:
    bucket.put("b.safetensors", lora(1))
    bucket.take()
    bucket.put("a.safetensors", lora(2))
    bucket.put("b.safetensors", lora(3))
    report = bucket.take()
    assert (report.counts.new, report.counts.changed) == (1, 1)
    assert {row.key for row in bucket.rows() if row.listed} == {"a.safetensors", "b.safetensors"}


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (b"", "truncated"),
        (b"<html>", "truncated"),
        (b"<html>not found</html>", "invalid_header"),
        (lora(1)[:-1], "truncated"),
        (lora(1) + b"x", "invalid_header"),
        (with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"), "not_a_lora"),
    ],
)
def test_what_is_no_lora_is_refused_by_name_and_looked_at_once(
    bucket: TestBucket, file: bytes, code: str
) -> None:
    bucket.put("x.safetensors", file, {"runpod_job_id": "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"})
    report = bucket.take()
    row = bucket.row("x.safetensors")
    assert (row.state, row.reason.partition(":")[0], row.artifact_id) == ("refused", code, None)
    assert report.standings["refused"] == 1
    assert report.bytes_hashed == 0
    assert bucket.take().read == 0


def test_a_file_above_the_limit_is_refused_unread(bucket: TestBucket) -> None:
    bucket.connections.settings.weights_cap_bytes = 100
    bucket.put("x.safetensors", lora(1))
    bucket.take()
    assert bucket.row("x.safetensors").reason.startswith("too_large: The file is")


def test_a_key_that_no_address_can_spell_is_named(bucket: TestBucket) -> None:
    bucket.put("a\x01b.safetensors", lora(1))
    bucket.take()
    assert bucket.row("a\x01b.safetensors").reason.startswith("unaddressable_key: ")


def test_what_we_archived_ourselves_is_known_without_reading_it(bucket: TestBucket) -> None:
    from lora_pipeline.database.tables import ModelVersion, UserModel
    from lora_pipeline.versions.registry import ArchivedWeights, attach_weights
    from lora_pipeline_tests.fixtures.pipeline import model_row

    address = bucket.put("loras/style_1/x.safetensors", lora(1))
    version_id = add_version(bucket.database, "style_1", 1, weights_state="unverified")
    etag = bucket.s3.head_object(Bucket=bucket.name, Key="loras/style_1/x.safetensors")["ETag"]
    archived = ArchivedWeights(content_of(lora(1)), address, etag, "")
    with bucket.database.begin() as session:
        model = session.get_one(UserModel, model_row(bucket.database, "style_1").id)
        version = session.get_one(ModelVersion, version_id)
        attach_weights(session, version, model, archived, bucket.connections.now())
    report = bucket.take()
    assert (report.read, report.attached) == (0, 1)
    assert bucket.row("loras/style_1/x.safetensors").version_id == version_id
    assert len(bucket.locations()) == 1


def test_what_came_and_went_between_two_passes_is_noticed_too(bucket: TestBucket) -> None:
    test_what_we_archived_ourselves_is_known_without_reading_it(bucket)
    with bucket.database.begin() as session:
        from lora_pipeline.database.tables import ArtifactLocation

        place = session.query(ArtifactLocation).one()
        session.add(
            ArtifactLocation(
                artifact_id=place.artifact_id,
                namespace="s3/aws",
                bucket=bucket.name,
                key="loras/never_listed.safetensors",
                object_version="",
                etag="",
                size=1,
                first_seen=place.first_seen,
                last_seen=place.first_seen,
            )
        )
    bucket.take()
    assert {one.key: one.deleted_at is None for one in bucket.locations()} == {
        "loras/never_listed.safetensors": False,
        "loras/style_1/x.safetensors": True,
    }


def test_only_the_configured_places_are_listed(bucket: TestBucket) -> None:
    for key in ("a/1.safetensors", "a/b/2.safetensors", "ab/3.safetensors", "4.safetensors"):
        bucket.put(key, lora(len(key)))
    bucket.connections.settings.inventory = f"s3://{bucket.name}/a"
    report = bucket.take()
    assert report.counts.files == 2
    assert sorted(bucket.standings()) == ["a/1.safetensors", "a/b/2.safetensors"]
    bucket.connections.settings.inventory = f"s3://{bucket.name}/ab"
    bucket.take()
    assert all(row.deleted_at is None for row in bucket.rows()), "what is no longer listed is not deleted"


def test_a_plan_says_what_would_be_read_and_writes_nothing(bucket: TestBucket) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.put("b.safetensors", lora(2))
    bucket.take()
    bucket.put("a.safetensors", lora(3))
    bucket.delete("b.safetensors")
    bucket.put("c.safetensors", lora(4))
    before = rows(bucket.database)
    plan = plan_inventory(bucket.connections)
    assert rows(bucket.database) == before
    assert [(one["what"], one["object"].rpartition("/")[2]) for one in plan.changes] == [
        ("changed", "a.safetensors"),
        ("new", "c.safetensors"),
        ("overwritten", "a.safetensors"),
        ("deleted", "b.safetensors"),
    ]
    assert (plan.to_read, plan.bytes_to_read) == (2, len(lora(3)) + len(lora(4)))
    assert plan.has_findings


def test_settings_of_our_own_store_lead_to_what_it_keeps(bucket: TestBucket) -> None:
    settings = settings_for(bucket.connections.settings.home, "sqlite://", bucket.name)
    settings.inventory, settings.object_store = "", f"s3://{bucket.name}/lora"
    bucket.connections.settings.inventory, bucket.connections.settings.object_store = (
        "",
        settings.object_store,
    )
    bucket.put("lora/loras/m/1.safetensors", lora(1))
    bucket.put("lora/trained/t/2.safetensors", lora(2))
    bucket.put("lora/submissions/3.safetensors", lora(3))
    assert bucket.take().counts.files == 2
