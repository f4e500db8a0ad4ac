"""Old files into the registry, twice without effect, and out again as the old application reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import MergeJournal, MergePlan, ModelVersion, TrainingRun, User, UserModel
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_export import export_tree
from lora_pipeline.inventory.legacy_import import ImportReport, import_tree
from lora_pipeline.inventory.legacy_models import model_of
from lora_pipeline.inventory.renames import rules_with_renames
from lora_pipeline.versions.version_lookup import VersionNotFound, find_version
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.test_registry_duplicates import rows
from lora_pipeline_tests.inventory.trees import (
    SYNCED_ENTRY,
    WEBHOOK_ENTRY,
    actor_file,
    make_tree,
    snapshot,
    style_file,
    write,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FAILED = {
    "id": "99999999-012c-4384-ae6c-4b19c126d093-e2",
    "name": "V8",
    "timestamp": "2025-10-13T08:14:00.884Z",
    "parameters": {"network_dim": 16},
    "status": "failed",
    "imageCount": 12,
    "error": "Training failed",
}


def load(
    database: Database, base: Path, *, apply: bool = True, renames: list[str] | None = None
) -> ImportReport:
    return import_tree(database, base, rules_with_renames(renames or []), NOW, apply=apply)


def kinds(report: ImportReport) -> set[str]:
    return {defect.kind for _, defect in report.defects}


def test_two_entries_become_one_version_that_both_ids_resolve_to(database: Database, tmp_path: Path) -> None:
    path = write(style_file(tmp_path, 1), {"versions": [FAILED, WEBHOOK_ENTRY, SYNCED_ENTRY]})
    content = path.read_bytes()
    report = load(database, tmp_path)
    assert (report.versions_new, report.runs_new, report.duplicates) == (1, 1, 1)
    assert path.read_bytes() == content
    with database.read() as session:
        model = session.query(UserModel).one()
        assert (model.model_key, model.model_name, model.model_type) == ("style_1", "ink intensity", "style")
        assert session.get_one(User, model.user_id).is_house
        found = {
            find_version(session, model, name).id
            for name in (
                WEBHOOK_ENTRY["id"],
                "style_1_vV7",
                "V7",
                SYNCED_ENTRY["loraUrl"],
                WEBHOOK_ENTRY["loraUrl"],
            )
        }
        (version_id,) = found
        version = session.get_one(ModelVersion, version_id)
        assert (version.number, version.parameters) == (7, WEBHOOK_ENTRY["parameters"])
        assert (version.weights_state, version.artifact_id, version.image_count) == ("unverified", None, 43)
        assert version.trained_at == datetime(2025, 10, 12, 8, 41, 5, 201000, tzinfo=UTC)
        assert model.lora_weights_url == WEBHOOK_ENTRY["loraUrl"]
        run = session.query(TrainingRun).one()
        assert (run.state, run.status, run.training_id) == ("failed", "failed", FAILED["id"])


def test_loading_twice_changes_nothing(database: Database, tmp_path: Path) -> None:
    make_tree(tmp_path, 12)
    first = load(database, tmp_path)
    before = rows(database)
    second = load(database, tmp_path)
    assert rows(database) == before
    assert (second.models_new, second.versions_new, second.runs_new, second.plan_id) == (0, 0, 0, None)
    assert (second.versions_known, second.runs_known) == (first.versions_new, first.runs_new)
    assert (first.models_new, first.runs_new, first.skipped) == (12, 12, [])
    with database.read() as session:
        assert session.query(ModelVersion).count() == first.versions_new == 12 * 6
        assert session.query(MergePlan).count() == 1


def test_a_plan_loads_nothing_and_says_the_same(database: Database, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 3)
    before, empty = snapshot(tmp_path / "tree"), rows(database)
    plan = load(database, tmp_path / "tree", apply=False)
    assert rows(database) == empty
    done = load(database, tmp_path / "tree")
    assert (plan.models_new, plan.versions_new, plan.runs_new) == (
        done.models_new,
        done.versions_new,
        done.runs_new,
    )
    assert snapshot(tmp_path / "tree") == before


def test_export_writes_what_was_imported_without_the_duplicates(
    sqlite_database: Database, tmp_path: Path
) -> None:
    truth = make_tree(tmp_path / "tree", 20)
    load(sqlite_database, tmp_path / "tree")
    planned = export_tree(sqlite_database, tmp_path / "out", apply=False)
    assert not (tmp_path / "out").exists()
    report = export_tree(sqlite_database, tmp_path / "out", apply=True)
    assert report.written == planned.written
    assert len(report.written) == 20
    for path in truth.files:
        exported = json.loads((tmp_path / "out" / path.relative_to(tmp_path / "tree")).read_text())
        original = json.loads(path.read_text())
        assert {key: exported[key] for key in ("schema", "owner")} == {
            key: original[key] for key in ("schema", "owner")
        }
        left = exported["versions"][:]
        for wanted in truth.loras[path]:
            (entry,) = (
                one
                for one in left
                if {one["id"], *one.get("mergedIds", [])} == wanted["ids"]
                and wanted["keys"] <= set(one)
                and one["parameters"] == wanted["parameters"]
            )
            assert (entry["id"], entry.get("isGood")) == (wanted["id"], wanted["isGood"])
            left.remove(entry)
        assert left == []
        times = [entry["timestamp"][:19] for entry in exported["versions"]]
        assert times == sorted(times, reverse=True)
    again = export_tree(sqlite_database, tmp_path / "out", apply=True)
    assert (again.written, len(again.unchanged)) == ([], 20)
    (tmp_path / "out" / report.written[0]).write_text("{}")
    assert export_tree(sqlite_database, tmp_path / "out", apply=True).refused == [report.written[0]]


def test_an_exported_tree_is_imported_without_a_new_row(sqlite_database: Database, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", 5)
    load(sqlite_database, tmp_path / "tree")
    export_tree(sqlite_database, tmp_path / "out", apply=True)
    before = rows(sqlite_database)
    report = load(sqlite_database, tmp_path / "out")
    assert (report.versions_new, report.runs_new) == (0, 0)
    assert rows(sqlite_database) == before


def entry(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**WEBHOOK_ENTRY, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([entry(status="pending", loraUrl=None)], "stuck_pending"),
        ([entry(status="pending", timestamp=NOW.isoformat())], "still_pending"),
        ([entry(completedAt=None)], "no_completed_at"),
        ([entry(loraUrl=None)], "no_weights"),
        ([entry(loraUrl="https://cdn.example.com/a.safetensors")], "unresolved_address"),
        ([entry(loraUrl="nonsense")], "unresolved_address"),
        ([entry(loraUrl=f"{WEBHOOK_ENTRY['loraUrl']}?X-Amz-Signature=0f")], "signed_address"),
        ([entry(name="style_91_4000")], "no_number"),
        ([entry(parameters={"optimizer_type": "AdamW8bit"})], "odd_parameter"),
        ([entry(parameters={"gradient_dtype": "fp32"})], "odd_parameter"),
        ([entry(timestamp="yesterday")], "unreadable_time"),
        ([entry(status="done")], "odd_status"),
        ([entry(completedAt="2025-10-12T10:41:02.000Z"), SYNCED_ENTRY], "local_time"),
        ([FAILED], "no_failed_at"),
        ([FAILED], "no_reason"),
        ([entry(id=None)], "no_id"),
        (["text"], "no_id"),
    ],
)
def test_every_defect_is_named_before_anything_is_loaded(
    sqlite_database: Database, tmp_path: Path, entries: list[Any], kind: str
) -> None:
    write(style_file(tmp_path, 1), {"versions": entries})
    report = load(sqlite_database, tmp_path, apply=False)
    assert kind in kinds(report)
    with sqlite_database.read() as session:
        assert session.query(UserModel).count() == 0


def test_local_time_labelled_utc_is_set_right(sqlite_database: Database, tmp_path: Path) -> None:
    write(
        style_file(tmp_path, 1), {"versions": [entry(completedAt="2025-10-12T10:41:02.000Z"), SYNCED_ENTRY]}
    )
    load(sqlite_database, tmp_path)
    with sqlite_database.read() as session:
        assert session.query(ModelVersion).one().trained_at == datetime(2025, 10, 12, 8, 41, 2, tzinfo=UTC)


def test_a_forgotten_training_ends_and_a_running_one_is_left_alone(
    sqlite_database: Database, tmp_path: Path
) -> None:
    recent = entry(
        id="11111111-012c-4384-ae6c-4b19c126d093",
        status="pending",
        timestamp=(NOW - timedelta(hours=1)).isoformat(),
    )
    write(style_file(tmp_path, 1), {"versions": [recent, entry(status="pending", loraUrl=None)]})
    report = load(sqlite_database, tmp_path)
    assert (report.runs_new, report.left_out) == (1, 1)
    with sqlite_database.read() as session:
        run = session.query(TrainingRun).one()
        assert (run.state, run.training_id) == ("aborted", WEBHOOK_ENTRY["id"])


def test_failed_trainings_without_a_job_id_are_each_a_run(sqlite_database: Database, tmp_path: Path) -> None:
    failures = [{**FAILED, "id": name, "name": name} for name in ("style_1_vV8", "style_1_vV9")]
    write(style_file(tmp_path, 1), {"versions": failures})
    assert load(sqlite_database, tmp_path).runs_new == 2


def test_a_name_that_two_loras_share_leads_to_neither(sqlite_database: Database, tmp_path: Path) -> None:
    one = {**SYNCED_ENTRY, "id": "shared", "name": "V1", "loraUrl": "s3://b/one/shared.safetensors"}
    other = {**SYNCED_ENTRY, "id": "shared", "name": "V2", "loraUrl": "s3://b/other/shared.safetensors"}
    write(style_file(tmp_path, 1), {"versions": [other, one]})
    assert load(sqlite_database, tmp_path).versions_new == 2
    with sqlite_database.read() as session:
        model = session.query(UserModel).one()
        with pytest.raises(VersionNotFound):
            find_version(session, model, "shared")
        assert find_version(session, model, "s3://b/other/shared.safetensors").number == 2


def test_a_renamed_folder_is_loaded_under_its_new_name(sqlite_database: Database, tmp_path: Path) -> None:
    old = str(WEBHOOK_ENTRY["loraUrl"]).replace("actor_maker_user", "styles_maker_user")
    write(style_file(tmp_path, 1), {"versions": [entry(loraUrl=old)]})
    report = load(
        sqlite_database, tmp_path, renames=["storyboard-user-files/styles_maker_user=actor_maker_user"]
    )
    assert "renamed_prefix" in kinds(report)
    with sqlite_database.read() as session:
        url = session.query(ModelVersion).one().weights_url
    assert url == "s3://storyboard-user-files/actor_maker_user/custom-styles-models/style_1_vV7.safetensors"


def test_a_rejected_version_is_not_served(sqlite_database: Database, tmp_path: Path) -> None:
    better = entry(id="V6", name="V6", timestamp="2025-09-01T00:00:00Z", loraUrl="s3://b/V6.safetensors")
    write(style_file(tmp_path, 1), {"versions": [{**WEBHOOK_ENTRY, "isGood": False}, better]})
    load(sqlite_database, tmp_path)
    with sqlite_database.read() as session:
        assert session.query(UserModel).one().lora_weights_url == "s3://b/V6.safetensors"


def test_the_same_object_under_two_models_is_loaded_once_and_named(
    sqlite_database: Database, tmp_path: Path
) -> None:
    write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY]})
    write(actor_file(tmp_path, 6), {"versions": [SYNCED_ENTRY]})
    report = load(sqlite_database, tmp_path)
    assert "other_model" in kinds(report)
    assert (report.versions_new, report.left_out) == (1, 1)


def test_no_signature_is_kept(sqlite_database: Database, tmp_path: Path) -> None:
    write(
        style_file(tmp_path, 1),
        {"versions": [entry(loraUrl=f"{WEBHOOK_ENTRY['loraUrl']}?X-Amz-Signature=c0ffee")]},
    )
    load(sqlite_database, tmp_path)
    with sqlite_database.read() as session:
        journal = json.dumps([line.before for line in session.query(MergeJournal)])
    assert "c0ffee" not in json.dumps(rows(sqlite_database), default=str) + journal


@pytest.mark.parametrize(
    ("path", "base", "key"),
    [
        ("resources/style_images/1_ink_intensity/training_versions.json", "/x/actor_maker", "style_1"),
        ("resources/actors/0006_ada/training_versions.json", "/x/styles_maker", "actor_6"),
        ("1_ink/training_versions.json", "/x/resources/style_images", "style_1"),
        ("training_versions.json", "/x/actors/0007_grace", "actor_7"),
        ("actor_6/training_versions.json", "/x", "actor_6"),
        ("style_images/watercolour/training_versions.json", "/x", "style_watercolour"),
        ("somewhere/1_ink/training_versions.json", "/x", None),
        ("resources/1_ink/training_versions.json", "/srv/actor_maker", None),
        ("1_ink/training_versions.json", "/srv/factory/lifestyle", None),
        ("actors/0006_old_style/training_versions.json", "/x", "actor_6"),
        ("Style_Images/7_Ölbild/training_versions.json", "/x", "style_7"),
    ],
)
def test_the_folder_says_whose_file_it_is(path: str, base: str, key: str | None) -> None:
    found = model_of(path, base)
    assert (found.key if found else None) == key


def test_the_commands_show_plan_and_defects_and_end_as_they_should(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade")
    tree = tmp_path / "tree"
    write(style_file(tree, 1), {"versions": [FAILED, WEBHOOK_ENTRY, SYNCED_ENTRY]})
    shown = run("import", "training-versions", str(tree))
    assert shown.code == Exit.FINE
    assert "no_failed_at" in shown.out
    assert "Nothing was changed" in shown.out
    assert run("import", "training-versions", str(tree), "--apply", "--json").json["versions_new"] == 1
    assert run("export", "training-versions", str(tmp_path / "out"), "--apply").code == Exit.FINE
    assert len(json.loads(style_file(tmp_path / "out", 1).read_text())["versions"]) == 2
    style_file(tree, 1).write_text("[]")
    assert run("import", "training-versions", str(tree)).code == Exit.ERROR


def test_the_rules_without_renames_are_the_plain_ones() -> None:
    assert rules_with_renames([]) == ObjectUrlRules()
