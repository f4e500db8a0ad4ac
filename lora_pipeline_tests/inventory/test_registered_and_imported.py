"""An object that a person registered and an old file that tells about it become one version, whichever comes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lora_pipeline.database.tables import ModelVersion, UserModel
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_export import export_tree
from lora_pipeline.inventory.legacy_import import ImportReport, import_tree
from lora_pipeline.inventory.registry_merging import apply_registry_plan, undo_registry_plan
from lora_pipeline.inventory.registry_plan import RegistryPlan, load_plan, plan_registry, store_plan
from lora_pipeline.versions.activation import open_activation
from lora_pipeline_tests.inventory.buckets import TestBucket, lora
from lora_pipeline_tests.inventory.test_registering import HEADER, KEY, names, register, versions
from lora_pipeline_tests.inventory.trees import PARAMETERS, WEBHOOK_ENTRY, snapshot, style_file, write


def entry(bucket: TestBucket, key: str = KEY, **more: Any) -> dict[str, Any]:
    url = f"https://{bucket.name}.s3-accelerate.amazonaws.com/{key}"
    parameters = PARAMETERS | {"class_tokens": "inkstyle", "network_alpha": 99}
    return WEBHOOK_ENTRY | {"loraUrl": url, "parameters": parameters} | more


def load(bucket: TestBucket, tree: Path) -> ImportReport:
    return import_tree(bucket.database, tree, ObjectUrlRules(), bucket.connections.now(), apply=True)


def served(bucket: TestBucket) -> str | None:
    with bucket.database.read() as session:
        activation = open_activation(session, session.query(UserModel).one().id)
        return f"V{session.get_one(ModelVersion, activation.version_id).number}" if activation else None


def test_an_old_file_tells_what_registering_could_not_know(
    bucket_on_each: TestBucket, tmp_path: Path
) -> None:
    bucket = bucket_on_each
    address = bucket.put(KEY, lora(1, **HEADER))
    bucket.take()
    register(bucket, address)
    write(style_file(tmp_path, 1), {"versions": [entry(bucket)]})

    report = load(bucket, tmp_path)

    assert (report.versions_new, report.versions_known) == (0, 1)
    (version,) = versions(bucket)
    # What the header tells was trained; the file tells the rest.
    assert version.parameters == PARAMETERS | {
        "class_tokens": "inkstyle",
        "network_alpha": 8.0,
        "learning_rate": 0.0001,
        "optimizer_type": "adamw8bit",
    }
    assert (version.trigger_word, version.image_count) == ("inkstyle", 43)
    assert version.trained_at is not None
    assert version.trained_at.isoformat() == "2025-10-12T08:41:05.201000+00:00"
    assert (version.weights_state, version.weights_url) == ("verified", address)
    assert ("training_id", f"runpod:{WEBHOOK_ENTRY['id']}") in names(bucket)
    assert served(bucket) == "V7"
    before = snapshot_of(version)
    load(bucket, tmp_path)
    assert [snapshot_of(one) for one in versions(bucket)] == [before]


def snapshot_of(version: ModelVersion) -> dict[str, Any]:
    return {column.name: getattr(version, column.name) for column in ModelVersion.__table__.columns}


def test_a_trigger_word_that_a_person_gave_stays(bucket: TestBucket, tmp_path: Path) -> None:
    address = bucket.put(KEY, lora(1))
    bucket.take()
    register(bucket, address, trigger_word="mine")
    write(style_file(tmp_path, 1), {"versions": [entry(bucket)]})
    load(bucket, tmp_path)
    assert [version.trigger_word for version in versions(bucket)] == ["mine"]


def test_no_older_version_is_served_because_the_newest_was_registered_before(
    bucket: TestBucket, tmp_path: Path
) -> None:
    newest = bucket.put(KEY.replace("V7", "V8"), lora(8))
    bucket.take()
    register(bucket, newest)
    old_id = WEBHOOK_ENTRY["id"].replace("3e", "4e")
    entries = [entry(bucket, KEY.replace("V7", "V8"), name="V8", id=old_id), entry(bucket)]
    write(style_file(tmp_path, 1), {"versions": entries})
    assert load(bucket, tmp_path).versions_new == 1
    assert served(bucket) == "V8"


def test_an_entry_of_a_registered_object_is_exported_as_it_came(bucket: TestBucket, tmp_path: Path) -> None:
    first, copy = bucket.put(KEY, lora(1, **HEADER)), bucket.put("copy/x.safetensors", lora(1, **HEADER))
    bucket.take()
    register(bucket, first, copy)
    told = entry(bucket)
    # Only their content says that these two are one.
    synced: dict[str, Any] = {
        "id": "x",
        "name": "x",
        "status": "completed",
        "loraUrl": copy,
        "description": "Synced from S3",
    }
    synced |= {"timestamp": "2025-10-12T08:41:02Z", "parameters": {}, "imageCount": 0}
    write(style_file(tmp_path / "old", 1), {"versions": [told, synced], "schema": 3})
    load(bucket, tmp_path / "old")
    load(bucket, tmp_path / "old")

    export_tree(bucket.database, tmp_path / "new", apply=True)

    (written,) = snapshot(tmp_path / "new").values()
    found = json.loads(written)
    (exported,) = found["versions"]
    assert found["schema"] == 3
    assert {name: exported.get(name) for name in told} == told
    assert (exported["description"], exported["mergedIds"]) == ("Synced from S3", ["x"])
    assert load(bucket, tmp_path / "new").versions_new == 0
    assert len(versions(bucket)) == 1


def test_a_file_that_names_an_unread_copy_makes_what_dedupe_finds(bucket: TestBucket, tmp_path: Path) -> None:
    first = bucket.put("backup/style_1_vV7.safetensors", lora(1, **HEADER))
    bucket.take()
    register(bucket, first)
    bucket.put(KEY, lora(1, **HEADER))
    write(style_file(tmp_path, 1), {"versions": [entry(bucket)]})
    assert load(bucket, tmp_path).versions_new == 1
    bucket.take()
    assert bucket.standing(KEY) == "doubtful"

    before = [told_of(one) for one in versions(bucket)]
    undone = undo_registry_plan(bucket.database, deduplicated(bucket), bucket.connections.now(), "test")
    assert undone.refused == ()
    assert [told_of(one) for one in versions(bucket)] == before

    survivor = deduplicated(bucket).groups[0].survivor
    bucket.take()
    assert set(bucket.standings().values()) == {"attached"}
    (left,) = [one for one in versions(bucket) if one.id == survivor]
    assert (left.weights_state, left.weights_url, left.trigger_word) == ("verified", first, "inkstyle")
    assert left.parameters is not None
    assert left.parameters["max_train_steps"] == 2000


def deduplicated(bucket: TestBucket) -> RegistryPlan:
    now = bucket.connections.now()
    plan = store_plan(bucket.database, plan_registry(bucket.database, ObjectUrlRules(), now), now)
    assert (plan.removed, plan.reviews) == (1, ())
    apply_registry_plan(bucket.database, plan, now, "test")
    return load_plan(bucket.database, plan.id)


def told_of(version: ModelVersion) -> dict[str, Any]:
    return {name: value for name, value in snapshot_of(version).items() if name != "updated_at"}
