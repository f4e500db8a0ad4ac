"""The webhook's entry and the bucket listing's become one, as a person does it: in the files and in the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.trees import (
    SYNCED_ENTRY,
    WEBHOOK_ENTRY,
    actor_file,
    snapshot,
    style_file,
    write,
)

JOB, FILE_NAME = WEBHOOK_ENTRY["id"], SYNCED_ENTRY["id"]
RENAMED = {
    **WEBHOOK_ENTRY,
    "loraUrl": str(WEBHOOK_ENTRY["loraUrl"]).replace("actor_maker_user", "styles_maker_user"),
}
RENAME = "storyboard-user-files/styles_maker_user=actor_maker_user"


def only_entry(path: Path) -> dict[str, Any]:
    (entry,) = json.loads(path.read_text())["versions"]
    assert isinstance(entry, dict)
    return entry


def is_whole(entry: dict[str, Any]) -> None:
    """Everything that either writer knew, and both ids."""
    assert entry["id"] == JOB
    assert entry["mergedIds"] == [FILE_NAME]
    assert entry["parameters"] == WEBHOOK_ENTRY["parameters"]
    assert entry["lastSynced"] == SYNCED_ENTRY["lastSynced"]
    assert set(WEBHOOK_ENTRY) | set(SYNCED_ENTRY) <= set(entry)


@pytest.mark.parametrize("layout", [style_file, actor_file])
def test_in_the_file(run: Run, tmp_path: Path, layout: Any) -> None:
    base = tmp_path / "actor_maker"
    path = write(layout(base, 1), {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]})
    before = snapshot(base)
    shown = run("dedupe", "--base-dir", str(base))
    assert (shown.code, snapshot(base)) == (Exit.DRIFT, before)
    assert "1 LoRA has 1 entry too many" in shown.out

    applied = run("dedupe", "--base-dir", str(base), "--apply")
    assert applied.code == Exit.FINE
    is_whole(only_entry(path))
    again = run("dedupe", "--base-dir", str(base), "--apply")
    assert (again.code, "no duplicates" in again.out) == (Exit.FINE, True)

    undo = applied.out.rpartition("Undo: lora-pipeline ")[2].split()
    assert run(*undo).code == Exit.FINE
    assert snapshot(base) == before


def test_a_listing_that_adds_its_entry_again_is_merged_again(run: Run, tmp_path: Path) -> None:
    path = write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]})
    run("dedupe", "--base-dir", str(tmp_path), "--apply")
    later = {**SYNCED_ENTRY, "lastSynced": "2025-11-01T09:46:20.075Z"}
    write(path, {"versions": [only_entry(path), later]})
    run("dedupe", "--base-dir", str(tmp_path), "--apply")
    entry = only_entry(path)
    assert (entry["lastSynced"], entry["mergedIds"]) == (later["lastSynced"], [FILE_NAME])


@pytest.mark.parametrize("cleaned_first", [False, True])
def test_a_version_in_the_registry_that_both_ids_resolve_to(
    run: Run, tmp_path: Path, cleaned_first: bool
) -> None:
    run("db", "upgrade")
    write(style_file(tmp_path, 1), {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]})
    if cleaned_first:
        assert run("dedupe", "--base-dir", str(tmp_path), "--apply").code == Exit.FINE
    assert run("import", "training-versions", str(tmp_path), "--apply").code == Exit.FINE
    is_one_version(run)


def test_two_versions_in_the_registry_become_one_and_two_again(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade")
    # Nothing says yet that the folder was renamed: two objects, two versions.
    write(style_file(tmp_path, 1), {"versions": [RENAMED, {**SYNCED_ENTRY, "isGood": True}]})
    assert run("import", "training-versions", str(tmp_path), "--apply").code == Exit.FINE
    before = run("versions", "style_1", "--json").json["versions"]
    assert len(before) == 2
    assert run("dedupe").code == Exit.FINE

    shown = run("dedupe", "--rename", RENAME)
    assert shown.code == Exit.DRIFT
    assert "last_synced_at = 2025-10-12T09:46:20.075000+00:00 (V8: the latest sync)" in shown.out
    assert run("versions", "style_1", "--json").json["versions"] == before
    applied = run("dedupe", "--rename", RENAME, "--apply", "--json")
    assert (applied.code, applied.json["changed"]) == (Exit.FINE, 1)
    version = is_one_version(run)
    assert version["is_good"] is True
    assert "/actor_maker_user/" in version["weights_url"], "the address of today is the one that is served"
    again = run("dedupe", "--rename", RENAME, "--apply")
    assert (again.code, "no duplicates" in again.out) == (Exit.FINE, True)

    assert run("export", "training-versions", str(tmp_path / "out"), "--apply").code == Exit.FINE
    entry = only_entry(style_file(tmp_path / "out", 1))
    is_whole(entry)
    assert entry["isGood"] is True

    assert run("dedupe", "undo", applied.json["plan_id"]).code == Exit.FINE
    after = run("versions", "style_1", "--json").json["versions"]
    assert after == before


def is_one_version(run: Run) -> dict[str, Any]:
    """One version with the webhook's parameters and the listing's time, under every name that either had."""
    (version,) = run("versions", "style_1", "--json").json["versions"]
    assert isinstance(version, dict)
    assert (version["version"], version["active"]) == ("V7", True)
    assert version["parameters"] == WEBHOOK_ENTRY["parameters"]
    assert version["last_synced_at"] == "2025-10-12T09:46:20.075000+00:00"
    assert {f"runpod:{JOB}", FILE_NAME} <= set(version["other_names"])
    for name in (
        JOB,
        JOB.removesuffix("-e1"),
        FILE_NAME,
        f"{FILE_NAME}.safetensors",
        SYNCED_ENTRY["loraUrl"],
    ):
        assert run("resolve", "style_1", name, "--json").json["version"] == "V7", name
        chosen = run("activate", "style_1", name, "--json").json
        assert (chosen["version"], chosen["pinned"]) == ("V7", False), name
    for name in (JOB, FILE_NAME):
        assert run("resolve", name, "--json").json == run("resolve", "style_1", "V7", "--json").json
        assert run("versions", name, "--json").json["model"] == "style_1"
    return version
