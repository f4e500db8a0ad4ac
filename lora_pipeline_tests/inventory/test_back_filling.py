"""The registry filled from a bucket: each LoRA comes to the version it belongs to, and nothing is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import (
    Activation,
    Artifact,
    AuditEntry,
    LoraWeights,
    ModelVersion,
    OutboxEvent,
    TrainingRun,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.objects import open_store
from lora_pipeline_tests.fixtures.pipeline import add_packed_run, model_row, run_row
from lora_pipeline_tests.inventory.buckets import TestBucket, content_of, lora, settings_for
from lora_pipeline_tests.versions.registered import NOW, add_version

JOB = "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"
KEY = "actor_maker_user/custom-styles-models/style_1_vV7.safetensors"
PARAMETERS = {"network_dim": 16, "learning_rate": 0.0001}


def add_job_version(bucket: TestBucket, number: int = 7, job: str | None = JOB, **fields: Any) -> int:
    """A version as the old system's webhook left it."""
    values: dict[str, Any] = {
        "provider": "runpod",
        "provider_version": None,
        "weights_url": None,
        "weights_state": "unverified",
        "parameters": PARAMETERS,
        "provenance": {"parameters": "the webhook"},
        "serve": False,
    }
    version = add_version(bucket.database, "style_1", number, **values | fields)
    with bucket.database.begin() as session:
        own = session.query(VersionAlias).filter_by(version_id=version, kind="training_id").one()
        if job is None:
            session.delete(own)
        else:
            own.alias = f"runpod:{job}"
    return version


def version_row(bucket: TestBucket, version: int) -> ModelVersion:
    with bucket.database.read() as session:
        return session.get_one(ModelVersion, version)


def count(bucket: TestBucket, table: Any) -> int:
    with bucket.database.read() as session:
        return int(session.query(table).count())


def aliases(bucket: TestBucket, version: int) -> set[tuple[str, str]]:
    with bucket.database.read() as session:
        found = session.query(VersionAlias).filter_by(version_id=version)
        return {(alias.kind, alias.alias) for alias in found}


def test_the_job_in_the_metadata_names_the_version_whatever_the_file_is_called(
    bucket_on_each: TestBucket,
) -> None:
    bucket = bucket_on_each
    version = add_job_version(bucket)
    add_job_version(bucket, 8, "11111111-012c-4384-ae6c-4b19c126d093-e1", weights_url="s3://other/place")
    address = bucket.put("somewhere/else entirely.safetensors", lora(1), {"runpod_job_id": JOB})

    report = bucket.take()

    assert (report.attached, count(bucket, ModelVersion)) == (1, 2)
    row = version_row(bucket, version)
    assert (row.weights_url, row.weights_state) == (address, "verified")
    assert row.parameters == PARAMETERS
    assert row.provenance == {"parameters": "the webhook", "weights": "found in the bucket and verified"}
    assert row.last_synced_at is not None
    bucket.take()
    assert version_row(bucket, version).last_synced_at == row.last_synced_at, "nothing of it was new"
    assert ("object", address) in aliases(bucket, version)
    with bucket.database.read() as session:
        artifact = session.get_one(Artifact, row.artifact_id)
        weights = session.query(LoraWeights).one()
    assert artifact.content_key == content_of(lora(1)).content_key
    assert (weights.s3_bucket, weights.s3_key) == (bucket.name, "somewhere/else entirely.safetensors")
    assert weights.checksum == content_of(lora(1)).file_sha256
    assert bucket.row("somewhere/else entirely.safetensors").version_id == version


@pytest.mark.parametrize(
    "metadata", [{"runpod_job_id": JOB.removesuffix("-e1")}, {"Runpod-Job-Id": JOB}, {"RUNPOD_JOB_ID": JOB}]
)
def test_a_job_is_found_without_its_suffix_and_in_other_spellings_of_its_name(
    bucket: TestBucket, metadata: dict[str, str]
) -> None:
    version = add_job_version(bucket)
    bucket.put(KEY, lora(1), metadata)
    bucket.take()
    assert bucket.row(KEY).version_id == version


def test_one_job_under_two_suffixes_is_a_hint_and_left_to_a_person(bucket: TestBucket) -> None:
    version = add_job_version(bucket)
    bucket.put(KEY, lora(1), {"runpod_job_id": JOB.replace("-e1", "-e2")})
    bucket.take()
    assert (bucket.standing(KEY), version_row(bucket, version).artifact_id) == ("doubtful", None)
    assert "different suffixes" in bucket.row(KEY).reason


def test_the_two_entries_of_one_object_stay_one_version(bucket: TestBucket) -> None:
    """What made two entries of one LoRA: a listing that knew no job. It adds nothing here."""
    spelled = f"https://{bucket.name}.s3-accelerate.amazonaws.com/{KEY}"
    version = add_job_version(bucket, weights_url=spelled)
    bucket.put(KEY, lora(1))
    bucket.take()
    bucket.take()
    assert count(bucket, ModelVersion) == 1
    row = version_row(bucket, version)
    assert (row.parameters, row.weights_url) == (PARAMETERS, f"s3://{bucket.name}/{KEY}")
    assert ("training_id", f"runpod:{JOB}") in aliases(bucket, version)


def test_the_same_name_size_and_etag_prove_nothing(bucket: TestBucket) -> None:
    version = add_job_version(bucket, weights_url=f"s3://{bucket.name}/style_1/{KEY.rpartition('/')[2]}")
    bucket.put(f"style_2/{KEY.rpartition('/')[2]}", lora(1))
    bucket.put("style_1_V7.safetensors", lora(2))
    report = bucket.take()
    assert (report.attached, report.standings["unregistered"]) == (0, 2)
    assert version_row(bucket, version).artifact_id is None


def test_the_same_content_elsewhere_is_another_place_of_the_version(bucket: TestBucket) -> None:
    version = add_job_version(bucket)
    bucket.put("a.safetensors", lora(1), {"runpod_job_id": JOB})
    bucket.take()
    before = version_row(bucket, version)
    # Other metadata in the header: another file, the same tensors.
    bucket.put("b.safetensors", lora(1, note="copied"))
    report = bucket.take()
    assert report.attached == 1
    after = version_row(bucket, version)
    assert (after.weights_url, after.updated_at) == (before.weights_url, before.updated_at)
    assert len(bucket.locations()) == 2
    assert count(bucket, Artifact) == 1
    assert ("object", f"s3://{bucket.name}/b.safetensors") in aliases(bucket, version)


def test_verified_weights_stay_what_they_are(bucket: TestBucket) -> None:
    version = add_job_version(bucket)
    bucket.put("ours.safetensors", lora(1), {"runpod_job_id": JOB})
    bucket.take()
    before = version_row(bucket, version)
    bucket.put("theirs.safetensors", lora(2), {"runpod_job_id": JOB})
    bucket.take()
    assert bucket.standing("theirs.safetensors") == "doubtful"
    assert "different contents" in bucket.row("theirs.safetensors").reason
    after = version_row(bucket, version)
    assert (after.artifact_id, after.weights_url) == (before.artifact_id, before.weights_url)
    (item,) = bucket.reviews()
    assert (item.kind, item.details["runpod_job_id"]) == ("doubtful_object", JOB)


def test_a_served_version_shows_the_weights_that_were_found(bucket: TestBucket) -> None:
    lost: dict[str, Any] = {"weights_url": None, "weights_state": "missing", "serve": True}
    version = add_job_version(bucket, **lost)
    with bucket.database.begin() as session:
        activation = session.query(Activation).one()
        activation.pinned = True
    address = bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    bucket.take()
    assert model_row(bucket.database, "style_1").lora_weights_url == address
    with bucket.database.read() as session:
        (activation,) = session.query(Activation).filter(Activation.active_to.is_(None)).all()
        assert (activation.version_id, activation.pinned) == (version, True)
        (audit,) = session.query(AuditEntry).filter_by(action="attach weights").all()
        assert audit.details["object"] == address
        assert session.query(OutboxEvent).filter_by(asset_key="version_registry").count() == 1


def test_while_observing_what_is_served_stays_and_the_registry_still_learns(bucket: TestBucket) -> None:
    add_job_version(bucket, weights_url="https://old.example/w.safetensors", serve=True)
    settings = bucket.connections.settings
    observing = Connections(
        settings_for(settings.home, str(settings.database_url), bucket.name, observe=True)
    )
    bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    TestBucket(bucket.name, bucket.s3, observing).take()
    assert bucket.standing(KEY) == "attached"
    assert model_row(bucket.database, "style_1").lora_weights_url == "https://old.example/w.safetensors"
    observing.database.close()


def test_a_renamed_folder_is_one_rule(bucket: TestBucket) -> None:
    old = f"https://s3-accelerate.amazonaws.com/{bucket.name}/styles_maker_user/a%20b.safetensors"
    version = add_job_version(bucket, weights_url=old, job=None)
    other = add_job_version(
        bucket, 8, weights_url=f"s3://{bucket.name}/styles_maker_user/c.safetensors", job=None
    )
    for seed, key in enumerate(("a b", "c")):
        bucket.put(f"actor_maker_user/{key}.safetensors", lora(seed))
    assert bucket.take().standings["unregistered"] == 2
    bucket.connections.settings.prefix_renames = f"{bucket.name}/styles_maker_user=actor_maker_user"
    report = bucket.take()
    assert (report.read, report.attached) == (0, 2)
    found = {row.key: row.version_id for row in bucket.rows()}
    assert found == {"actor_maker_user/a b.safetensors": version, "actor_maker_user/c.safetensors": other}
    assert version_row(bucket, version).weights_url == f"s3://{bucket.name}/actor_maker_user/a b.safetensors"
    assert {item.resolved_at is not None for item in bucket.reviews()} == {True}


@pytest.mark.parametrize("state", ["failed", "canceled", "aborted"])
@pytest.mark.parametrize("by", ["token", "job"])
def test_an_object_does_not_complete_a_training_that_ended(
    bucket: TestBucket, tmp_path: Any, state: str, by: str
) -> None:
    store = open_store(str(tmp_path / "objects"))
    run = add_packed_run(
        bucket.database, store, state=state, status="failed", provider="runpod", training_id=JOB
    )
    before = run_row(bucket.database, run)
    metadata = {"token": before.token} if by == "token" else {"runpod_job_id": JOB}
    bucket.put(f"trained/{before.token}/user-50c.safetensors", lora(1), metadata)
    bucket.take()
    after = run_row(bucket.database, run)
    assert (after.state, after.status, after.updated_at) == (state, "failed", before.updated_at)
    assert count(bucket, ModelVersion) == 0
    (item,) = bucket.reviews()
    assert (item.kind, item.subject) == ("object_of_ended_training", f"training run {run}")


def test_the_object_of_a_training_under_way_is_expected_and_attached_once_it_is_finalised(
    bucket: TestBucket, tmp_path: Any
) -> None:
    store = open_store(str(tmp_path / "objects"))
    run = add_packed_run(bucket.database, store, state="running", provider="runpod", training_id=JOB)
    token = run_row(bucket.database, run).token
    key = f"trained/{token}/user-50c.safetensors"
    address = bucket.put(key, lora(1), {"token": token})
    report = bucket.take()
    assert (bucket.standing(key), report.has_findings, bucket.reviews()) == ("expected", False, [])
    assert run_row(bucket.database, run).state == "running"

    version = add_version(
        bucket.database,
        "user-50c",
        1,
        training_run_id=run,
        provider="runpod",
        provider_version=None,
        weights_url=address,
        weights_state="unverified",
    )
    with bucket.database.begin() as session:
        session.get_one(TrainingRun, run).state = "finalised"
    report = bucket.take()
    assert (report.read, report.attached, bucket.row(key).version_id) == (0, 1, version)


def test_an_unregistered_lora_is_asked_about_once_and_settles_itself_when_its_version_comes(
    bucket: TestBucket,
) -> None:
    bucket.put("a.safetensors", lora(1))
    bucket.put("copy.safetensors", lora(1))
    report = bucket.take()
    assert report.standings["unregistered"] == 2
    assert "import training-versions" in report.next_step
    (item,) = bucket.reviews()
    assert (item.kind, item.subject) == ("unregistered_lora", f"LoRA {content_of(lora(1)).content_key}")
    bucket.take()
    assert len(bucket.reviews()) == 1

    version = add_job_version(bucket, weights_url=f"s3://{bucket.name}/a.safetensors")
    bucket.take()
    assert {row.version_id for row in bucket.rows()} == {version}, (
        "the copy has the content that is known now"
    )
    (item,) = bucket.reviews()
    assert item.resolved_at is not None
    assert "V7 of style_1" in str(item.resolution)


def test_a_merged_version_leads_to_the_one_that_took_its_place(bucket: TestBucket) -> None:
    stays, merged = add_job_version(bucket), add_job_version(bucket, 8, None)
    address = f"s3://{bucket.name}/{KEY}"
    with bucket.database.begin() as session:
        session.add(VersionAlias(kind="object", alias=address, version_id=merged, created_at=NOW))
        session.add(VersionRedirect(old_version_id=merged, version_id=stays, created_at=NOW))
    bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    bucket.take()
    assert bucket.row(KEY).version_id == stays


def test_what_is_registered_twice_is_left_to_deduplication_and_attached_after_it(bucket: TestBucket) -> None:
    one = add_job_version(bucket)
    other = add_job_version(bucket, 8, None, weights_url=f"s3://{bucket.name}/{KEY}")
    bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    bucket.take()
    assert "lora-pipeline dedupe" in bucket.row(KEY).reason
    with bucket.database.begin() as session:
        session.add(VersionRedirect(old_version_id=other, version_id=one, created_at=NOW))
        session.query(VersionAlias).filter_by(version_id=other).update({"version_id": one})
    assert (bucket.take().attached, bucket.row(KEY).version_id) == (1, one)


def test_a_version_that_names_its_object_version_gets_those_bytes_and_no_others(bucket: TestBucket) -> None:
    bucket.keep_versions()
    for seed in (1, 2):
        bucket.put(KEY, lora(seed))
    older, newest = bucket.versions[KEY]
    base = f"https://{bucket.name}.s3.amazonaws.com/{KEY}?versionId="
    first = add_job_version(bucket, 7, None, weights_url=base + older)
    second = add_job_version(bucket, 8, None, weights_url=base + newest)
    bucket.take()
    found = {row.object_version: (row.state, row.version_id) for row in bucket.rows()}
    assert found == {older: ("attached", first), newest: ("attached", second)}
    with bucket.database.read() as session:
        contents = {
            version: session.get_one(Artifact, session.get_one(ModelVersion, version).artifact_id).content_key
            for version in (first, second)
        }
    assert contents == {first: content_of(lora(1)).content_key, second: content_of(lora(2)).content_key}
    assert version_row(bucket, first).weights_url == base + older, "its key leads to other bytes now"
    assert version_row(bucket, first).weights_state == "unverified"
    assert version_row(bucket, second).weights_state == "verified"


def test_an_address_without_a_version_does_not_choose_among_several_contents(bucket: TestBucket) -> None:
    bucket.keep_versions()
    for seed in (1, 2):
        bucket.put(KEY, lora(seed))
    add_job_version(bucket, 7, None, weights_url=f"s3://{bucket.name}/{KEY}")
    bucket.take()
    assert {row.state for row in bucket.rows()} == {"doubtful"}
    assert "several contents" in bucket.row(KEY).reason


def test_a_file_whose_version_is_gone_is_thought_over_again(bucket: TestBucket) -> None:
    version = add_job_version(bucket)
    bucket.put(KEY, lora(1), {"runpod_job_id": JOB})
    bucket.take()
    with bucket.database.begin() as session:
        session.query(VersionAlias).filter_by(version_id=version).delete()
        session.delete(session.get_one(ModelVersion, version))
    bucket.take()
    assert (bucket.standing(KEY), bucket.row(KEY).version_id) == ("unregistered", None)
    with bucket.database.read() as session:
        assert session.query(UserModel).count() == 1
