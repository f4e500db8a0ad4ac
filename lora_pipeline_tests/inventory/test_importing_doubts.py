"""Entries that contradict each other, or what was loaded before: none is lost, none is merged, all are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion, ReviewItem, UserModel
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_export import export_tree
from lora_pipeline.inventory.registry_plan import plan_registry
from lora_pipeline.versions.version_lookup import VersionNotFound, find_version
from lora_pipeline_tests.inventory.test_importing_trees import FAILED, NOW, entry, kinds, load
from lora_pipeline_tests.inventory.test_registry_duplicates import rows
from lora_pipeline_tests.inventory.trees import (
    SYNCED_ENTRY,
    WEBHOOK_ENTRY,
    actor_file,
    style_file,
    write,
)

OTHER_JOB = "99999999-012c-4384-ae6c-4b19c126d093-e1"


def versions(database: Database) -> list[ModelVersion]:
    with database.read() as session:
        return list(session.query(ModelVersion).order_by(ModelVersion.number))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([WEBHOOK_ENTRY, entry(id=OTHER_JOB, name="V8")], "different provider jobs"),
        ([entry(isGood=True), {**SYNCED_ENTRY, "isGood": False}], "reviewers disagree"),
        (
            [
                {**SYNCED_ENTRY, "loraUrl": f"{SYNCED_ENTRY['loraUrl']}?versionId=1"},
                {**SYNCED_ENTRY, "id": "older", "loraUrl": f"{SYNCED_ENTRY['loraUrl']}?versionId=2"},
            ],
            "different object versions",
        ),
        (
            [
                entry(loraUrl="s3://b/style_1_500.safetensors"),
                entry(loraUrl="s3://b/style_1_1000.safetensors"),
            ],
            "different objects",
        ),
    ],
)
def test_entries_that_contradict_each_other_are_a_version_each(
    database: Database, tmp_path: Path, entries: list[dict[str, Any]], reason: str
) -> None:
    write(style_file(tmp_path, 1), {"versions": entries})
    planned = load(database, tmp_path, apply=False)
    (told,) = (defect for _, defect in planned.defects if defect.kind == "conflict")
    assert reason in told.what
    loaded = load(database, tmp_path)
    assert (loaded.versions_new, loaded.duplicates) == (2, 0)
    with database.read() as session:
        assert [item.details["what"] for item in session.query(ReviewItem)] == [told.what]
    before = rows(database)
    again = load(database, tmp_path)
    assert (again.versions_new, again.versions_known) == (0, 2)
    assert rows(database) == before
    plan = plan_registry(database, ObjectUrlRules(), NOW)
    assert plan.groups == ()
    # A job's other checkpoint has nothing in common with the first that the registry could doubt.
    assert [reason in review["reason"] for review in plan.reviews] == [True] * (reason != "different objects")


def test_a_verdict_that_changed_since_is_told_and_makes_no_second_version(
    sqlite_database: Database, tmp_path: Path
) -> None:
    for verdict in (True, False):
        good = entry(isGood=verdict)
        write(
            style_file(tmp_path, 1),
            {"versions": [good, {**SYNCED_ENTRY, "id": "x", "loraUrl": None, "isGood": verdict}]},
        )
        report = load(sqlite_database, tmp_path)
    assert [defect.where for _, defect in report.defects if defect.kind == "other_verdict"] == [
        "x",
        good["id"],
    ]
    assert [version.is_good for version in versions(sqlite_database)] == [True, True]


def test_what_a_later_import_knows_is_added_and_nothing_overwritten(
    sqlite_database: Database, tmp_path: Path
) -> None:
    path = write(style_file(tmp_path, 1), {"versions": [SYNCED_ENTRY]})
    load(sqlite_database, tmp_path)
    later = {**SYNCED_ENTRY, "lastSynced": "2025-11-01T00:00:00Z", "isGood": True}
    write(path, {"versions": [WEBHOOK_ENTRY, later]})
    assert load(sqlite_database, tmp_path).versions_new == 0
    (version,) = versions(sqlite_database)
    assert (version.parameters, version.image_count) == (WEBHOOK_ENTRY["parameters"], 43)
    assert version.is_good is True
    assert version.last_synced_at is not None
    assert version.last_synced_at.month == 11
    assert version.trained_at is not None
    assert version.trained_at.second == 2, "the time that was known first"


def test_an_old_id_that_reads_as_a_number_leads_to_the_lora_that_had_it(
    sqlite_database: Database, tmp_path: Path
) -> None:
    lookalike = {**SYNCED_ENTRY, "loraUrl": "s3://b/archive/2024/style_1_vV7.safetensors"}
    write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY, lookalike]})
    load(sqlite_database, tmp_path)
    with sqlite_database.read() as session:
        model = session.query(UserModel).one()
        assert find_version(session, model, WEBHOOK_ENTRY["id"]).number == 7
        assert find_version(session, model, "V7").number == 7
        for name in ("style_1_vV7", "style_1_vV7.safetensors", lookalike["loraUrl"]):
            assert find_version(session, model, name).weights_url == lookalike["loraUrl"]
        with pytest.raises(VersionNotFound):
            find_version(session, model, "style_1_vV9")


def test_the_same_lora_in_two_files_is_named_before_anything_is_loaded(
    sqlite_database: Database, tmp_path: Path
) -> None:
    write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY]})
    write(actor_file(tmp_path, 6), {"versions": [SYNCED_ENTRY]})
    report = load(sqlite_database, tmp_path, apply=False)
    assert "two_files" in kinds(report)


def test_two_files_of_one_model_are_loaded_into_it_and_named(
    sqlite_database: Database, tmp_path: Path
) -> None:
    write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY]})
    write(style_file(tmp_path / "copy", 1), {"versions": [WEBHOOK_ENTRY, {**FAILED, "status": "completed"}]})
    report = load(sqlite_database, tmp_path)
    assert "shared_model" in kinds(report)
    assert (report.models_new, report.versions_new, report.versions_known) == (1, 2, 1)


def test_a_forgotten_training_is_exported_as_failed(sqlite_database: Database, tmp_path: Path) -> None:
    stuck = entry(status="pending", loraUrl=None, completedAt=None, description="mine")
    write(style_file(tmp_path / "tree", 1), {"versions": [stuck]})
    load(sqlite_database, tmp_path / "tree")
    export_tree(sqlite_database, tmp_path / "out", apply=True)
    (written,) = json.loads(style_file(tmp_path / "out", 1).read_text())["versions"]
    assert {**stuck, "status": "failed"}.items() <= written.items()
    assert "never heard of again" in written["error"]
    assert written["failedAt"] == "2025-10-12T08:14:00.884Z"
    before = rows(sqlite_database)
    assert load(sqlite_database, tmp_path / "out").runs_new == 0
    assert rows(sqlite_database) == before
