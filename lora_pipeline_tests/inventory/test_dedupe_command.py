"""`lora-pipeline dedupe`: what it shows, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.test_registry_duplicates import planned, rows
from lora_pipeline_tests.inventory.trees import SYNCED_ENTRY, WEBHOOK_ENTRY, snapshot, style_file, write
from lora_pipeline_tests.versions.registered import add_version


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(style_file(tmp_path / "tree", 1), {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]})
    return tmp_path / "tree"


def test_a_dry_run_shows_the_plan_and_changes_nothing(run: Run, tree: Path) -> None:
    before = snapshot(tree)
    ended = run("dedupe", "--base-dir", str(tree))
    assert ended.code == Exit.DRIFT
    assert "style_1_vV7" in ended.out
    assert "lastSynced = 2025-10-12T09:46:20.075Z (style_1_vV7: the latest sync)" in ended.out
    assert "Nothing was changed" in ended.out
    assert snapshot(tree) == before


def test_the_reviewed_plan_is_applied_and_undone(run: Run, tree: Path) -> None:
    before = snapshot(tree)
    plan = run("dedupe", "--base-dir", str(tree), "--json").json
    assert plan["files"][0]["groups"][0]["survivor"] == WEBHOOK_ENTRY["id"]
    applied = run("dedupe", "--apply", "--plan", plan["id"], "--json")
    assert (applied.code, applied.json["changed"]) == (Exit.FINE, 1)
    assert run("dedupe", "--base-dir", str(tree)).code == Exit.FINE
    undone = run("dedupe", "undo", plan["id"])
    assert (undone.code, "1 file restored" in undone.out) == (Exit.FINE, True)
    assert snapshot(tree) == before
    assert run("dedupe", "--apply", "--plan", plan["id"]).code == Exit.REFUSED
    assert "applied and undone" in run("dedupe", "--plan", plan["id"]).out


def test_a_plan_is_carried_out_in_its_own_folder_named_or_not(run: Run, tree: Path) -> None:
    plan = run("dedupe", "--base-dir", str(tree), "--json").json["id"]
    other = run("dedupe", "--base-dir", str(tree.parent), "--plan", plan, "--apply")
    assert (other.code, f"not of {tree.parent}" in other.err) == (Exit.WRONG_USE, True)
    assert run("dedupe", "--base-dir", str(tree), "--plan", plan, "--apply").code == Exit.FINE
    assert run("dedupe", "--base-dir", str(tree)).code == Exit.FINE


def test_a_plan_whose_folder_is_gone_is_refused_and_can_be_applied_when_it_is_back(
    run: Run, tree: Path
) -> None:
    plan = run("dedupe", "--base-dir", str(tree), "--json").json["id"]
    elsewhere = tree.rename(tree.with_name("elsewhere"))
    ended = run("dedupe", "--apply", "--plan", plan)
    assert (ended.code, f"{tree}, which plan {plan} is of, cannot be opened" in ended.err) == (
        Exit.REFUSED,
        True,
    )
    elsewhere.rename(tree)
    assert run("dedupe", "--apply", "--plan", plan).code == Exit.FINE
    shown = run("dedupe", "--plan", plan)
    assert f"This plan is applied. Undo: lora-pipeline dedupe undo {plan}" in shown.out
    assert shown.code == Exit.FINE, "what it found is done"


def test_undo_without_the_backup_is_refused_and_named(run: Run, tree: Path) -> None:
    applied = run("dedupe", "--base-dir", str(tree), "--apply", "--json").json
    (backup,) = tree.rglob("*.backup-1")
    before = snapshot(tree)
    backup.write_text("{}")
    ended = run("dedupe", "undo", applied["plan_id"])
    assert (ended.code, "backup-1 was changed" in ended.out) == (Exit.REFUSED, True)
    backup.unlink()
    ended = run("dedupe", "undo", applied["plan_id"])
    assert (ended.code, "backup-1 cannot be read" in ended.out) == (Exit.REFUSED, True)
    assert {**snapshot(tree), str(backup.relative_to(tree)): before[str(backup.relative_to(tree))]} == before


def test_apply_without_a_plan_makes_one(run: Run, tree: Path) -> None:
    assert run("dedupe", "--base-dir", str(tree), "--apply").code == Exit.FINE
    assert run("dedupe", "--base-dir", str(tree)).code == Exit.FINE
    again = run("dedupe", "--base-dir", str(tree), "--apply")
    assert (again.code, "there were no duplicates" in again.out, "undo" in again.out) == (
        Exit.FINE,
        True,
        False,
    )


def test_a_folder_whose_name_no_database_keeps_is_deduplicated_and_not_imported(run: Run, tree: Path) -> None:
    odd = tree.rename(tree.with_name("styles \udcff"))
    assert run("dedupe", "--base-dir", str(odd), "--apply").code == Exit.FINE
    run("db", "upgrade")
    ended = run("import", "training-versions", str(odd))
    assert (ended.code, "a character that no database keeps" in ended.out) == (Exit.ERROR, True)


def test_what_was_skipped_is_named_and_told_by_the_exit_code(run: Run, tree: Path) -> None:
    bad = style_file(tree, 2)
    bad.parent.mkdir()
    bad.write_text("[]")
    for options in ([], ["--apply"]):
        ended = run("dedupe", "--base-dir", str(tree), *options)
        assert ended.code == Exit.ERROR
        assert "a JSON array" in ended.out
    assert bad.read_text() == "[]"


def test_a_changed_file_is_refused(run: Run, tree: Path) -> None:
    plan = run("dedupe", "--base-dir", str(tree), "--json").json
    write(style_file(tree, 1), {"versions": [WEBHOOK_ENTRY]})
    ended = run("dedupe", "--apply", "--plan", plan["id"], "--json")
    assert (ended.code, ended.json["changed"], ended.json["entries_removed"]) == (Exit.REFUSED, 0, 0)


def test_a_home_that_cannot_be_used_is_named_with_what_to_do(
    run: Run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORA_HOME", str(tmp_path / "file"))
    ended = run("dedupe", "--base-dir", str(tree))
    assert (ended.code, "lora-pipeline doctor" in ended.err, "Errno" in ended.err) == (
        Exit.ERROR,
        True,
        False,
    )


def test_wrong_use_is_told(run: Run, tree: Path) -> None:
    run("db", "upgrade")
    assert run("dedupe", "--base-dir", str(tree / "nowhere")).code == Exit.WRONG_USE
    assert run("dedupe", "--base-dir", str(tree), "--plan", "x").code == Exit.WRONG_USE
    assert run("dedupe", "undo", "20260101-000000-00000000").code == Exit.WRONG_USE
    ended = run("dedupe", "--base-dir", str(tree), "--rename", "old=new")
    assert ended.code == Exit.WRONG_USE
    assert "bucket/old_folder=new_folder" in ended.err


def test_the_registry_is_deduplicated_and_undone(run: Run, home: Path) -> None:
    run("db", "upgrade")
    assert run("dedupe").code == Exit.FINE
    database = Database(f"sqlite:///{home / 'lora.sqlite3'}")
    for number, address, count in (
        (1, "s3://b/k.safetensors", None),
        (2, "https://b.s3.amazonaws.com/k.safetensors", 43),
    ):
        add_version(
            database, "style_1", number, weights_url=address, provider_version=None, image_count=count
        )
    with database.begin() as session:
        session.connection().exec_driver_sql("DELETE FROM version_aliases WHERE kind = 'training_id'")
    before = rows(database)
    shown = run("dedupe")
    assert shown.code == Exit.DRIFT
    assert "image_count = 43 (V2: the richer version does not have it)" in shown.out
    assert rows(database) == before
    applied = run("dedupe", "--apply", "--plan", planned(database).id, "--json")
    assert (applied.code, applied.json["changed"]) == (Exit.FINE, 1)
    plan = applied.json["plan_id"]
    again = run("dedupe", "--plan", plan)
    assert (again.code, "This plan is applied" in again.out) == (Exit.FINE, True)
    undone = run("dedupe", "undo", plan)
    assert (undone.code, "1 LoRA taken apart" in undone.out) == (Exit.FINE, True)
    assert rows(database) == before
    database.close()
