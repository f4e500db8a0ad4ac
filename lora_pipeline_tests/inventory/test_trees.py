"""Trees of training_versions.json: deduplicated against known truth, and undone byte for byte."""

from __future__ import annotations

import json
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.cli.exits import Exit
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entries import MERGED_IDS
from lora_pipeline.inventory.plan_store import PlanNotFound, PlanRefused, PlanStore
from lora_pipeline.inventory.renames import rules_with_renames
from lora_pipeline.inventory.tree_deduplication import TreeResult, apply_plan, plan_tree, undo_plan
from lora_pipeline.inventory.tree_plan import TreePlan
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.trees import (
    SYNCED_ENTRY,
    WEBHOOK_ENTRY,
    faults,
    make_tree,
    snapshot,
    style_file,
    write,
)

RULES = ObjectUrlRules()


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "home")


def planned(store: PlanStore, base: Path, rules: ObjectUrlRules = RULES) -> TreePlan:
    return store.save(plan_tree(base, rules), now())


def applied(store: PlanStore, base: Path) -> TreeResult:
    return apply_plan(store, planned(store, base), now)


def entries(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())["versions"]
    assert isinstance(found, list)
    return found


def test_a_tree_with_known_truth(store: PlanStore, base: Path) -> None:
    truth = make_tree(base, 300)
    before = snapshot(base)
    plan = planned(store, base)
    assert snapshot(base) == before
    assert (plan.files_read, plan.entries_read) == (300, truth.entries)
    assert plan.removed == truth.duplicates > 1000
    assert plan.reviews == ()
    assert plan.skipped == ()
    assert store.load(plan.id) == plan

    result = apply_plan(store, plan, now)
    assert result.changed == len(plan.files)
    assert result.refused == ()
    assert faults(truth) == []
    assert plan_tree(base, RULES).groups == 0
    again = apply_plan(store, store.load(plan.id), now)
    assert (again.changed, again.already) == (0, len(plan.files))

    undone = undo_plan(store, plan.id, now)
    assert undone.changed == len(plan.files)
    assert snapshot(base) == before
    assert undo_plan(store, plan.id, now).changed == 0


def test_the_two_writers_entries_become_one(store: PlanStore, base: Path) -> None:
    path = write(style_file(base, 1), {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]})
    applied(store, base)
    (entry,) = entries(path)
    assert entry["parameters"] == WEBHOOK_ENTRY["parameters"]
    assert entry["lastSynced"] == SYNCED_ENTRY["lastSynced"]
    assert (entry["id"], entry[MERGED_IDS]) == (WEBHOOK_ENTRY["id"], ["style_1_vV7"])


def test_what_is_not_merged_keeps_every_character(store: PlanStore, base: Path) -> None:
    path = style_file(base, 1)
    path.parent.mkdir(parents=True)
    webhook, synced = json.dumps(WEBHOOK_ENTRY), json.dumps(SYNCED_ENTRY)
    odd = '{"id" : "x",\t"learning_rate": 1.0E-04, "big": 123456789012345678901234567890, "n": "\\u00e9\\ud83d\\ude00é" }'
    text = f'\n{{ "a": [ ],\r\n  "versions": [ {odd},\r\n\t{synced} , {webhook},\n {{"id":"last"}} ],\r\n "z": -0.0 }}\n\n'
    path.write_bytes(text.encode())
    applied(store, base)
    after = path.read_bytes().decode()
    assert after.startswith(text[: text.index(odd) + len(odd)])
    assert after.endswith(text[text.index('{"id":"last"}') :])
    assert [entry["id"] for entry in entries(path)] == ["x", WEBHOOK_ENTRY["id"], "last"]


def test_the_survivor_stays_where_the_richer_entry_was(store: PlanStore, base: Path) -> None:
    others = [{"id": name} for name in "abc"]
    path = write(style_file(base, 1), {"versions": [SYNCED_ENTRY, *others[:2], WEBHOOK_ENTRY, others[2]]})
    applied(store, base)
    assert [entry["id"] for entry in entries(path)] == ["a", "b", WEBHOOK_ENTRY["id"], "c"]


def test_backups_are_numbered_and_the_mode_is_kept(store: PlanStore, base: Path) -> None:
    both = {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]}
    path = write(style_file(base, 1), both)
    path.chmod(0o640)
    first = path.read_bytes()
    applied(store, base)
    assert path.stat().st_mode & 0o777 == 0o640
    write(path, both, indent=4)
    second = path.read_bytes()
    applied(store, base)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [
        "training_versions.json",
        "training_versions.json.backup-1",
        "training_versions.json.backup-2",
    ]
    assert path.with_name(names[1]).read_bytes() == first
    assert path.with_name(names[2]).read_bytes() == second


def test_a_file_that_changed_since_the_plan_is_refused_and_the_others_go_on(
    store: PlanStore, base: Path
) -> None:
    make_tree(base, 5)
    plan = planned(store, base)
    changed = base / plan.files[0].path
    changed.write_text(changed.read_text() + "\n")
    content = changed.read_bytes()
    result = apply_plan(store, plan, now)
    assert result.changed == len(plan.files) - 1
    (refused,) = result.refused
    assert refused.path == plan.files[0].path
    assert "changed since the plan was made" in refused.reason
    assert changed.read_bytes() == content


def test_undo_refuses_what_was_changed_afterwards(store: PlanStore, base: Path) -> None:
    make_tree(base, 3)
    plan = planned(store, base)
    apply_plan(store, plan, now)
    changed = base / plan.files[0].path
    changed.write_text('{"versions": []}')
    result = undo_plan(store, plan.id, now)
    assert (result.changed, result.state) == (len(plan.files) - 1, "undoing")
    assert "backup-1" in result.refused[0].reason
    assert changed.read_text() == '{"versions": []}'


def test_a_plan_is_carried_out_as_it_was_made_or_not_at_all(store: PlanStore, base: Path) -> None:
    make_tree(base, 2)
    plan = planned(store, base)
    with pytest.raises(PlanRefused, match="never applied"):
        undo_plan(store, plan.id, now)
    with pytest.raises(PlanNotFound):
        store.load("../../etc")
    file = store.file(plan.id)
    file.write_text(file.read_text().replace('"base": 1', '"base": 0', 1))
    with pytest.raises(PlanRefused, match="make a new one"):
        store.load(plan.id)


def test_an_undone_plan_is_not_applied_again(store: PlanStore, base: Path) -> None:
    make_tree(base, 2)
    plan = planned(store, base)
    apply_plan(store, plan, now)
    undo_plan(store, plan.id, now)
    with pytest.raises(PlanRefused, match="undone"):
        apply_plan(store, plan, now)


def test_a_renamed_folder_is_one_configured_rule(store: PlanStore, base: Path) -> None:
    old = {
        **WEBHOOK_ENTRY,
        "loraUrl": str(WEBHOOK_ENTRY["loraUrl"]).replace("actor_maker_user", "styles_maker_user"),
    }
    path = write(style_file(base, 1), {"versions": [old, SYNCED_ENTRY]})
    assert planned(store, base).groups == 0
    rules = rules_with_renames(["storyboard-user-files/styles_maker_user=actor_maker_user"])
    apply_plan(store, planned(store, base, rules), now)
    (entry,) = entries(path)
    assert entry["loraUrl"] == SYNCED_ENTRY["loraUrl"]
    assert entry["id"] == WEBHOOK_ENTRY["id"]


def test_the_same_lora_in_two_files_is_for_a_person(store: PlanStore, base: Path) -> None:
    one = write(style_file(base, 1), {"versions": [WEBHOOK_ENTRY]})
    other = write(style_file(base, 2), {"versions": [SYNCED_ENTRY]})
    plan = planned(store, base)
    assert plan.groups == 0
    (review,) = plan.reviews
    assert review.paths == tuple(str(path.relative_to(base)) for path in (one, other))
    assert review.ids == (WEBHOOK_ENTRY["id"], "style_1_vV7")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed"}, "failed"),
        ({"isGood": True}, "reviewers disagree"),
        ({"id": "99999999-012c-4384-ae6c-4b19c126d093-e1"}, "different provider jobs"),
    ],
)
def test_contradictions_are_left_for_a_person(
    store: PlanStore, base: Path, changes: dict[str, Any], reason: str
) -> None:
    other = {**SYNCED_ENTRY, "isGood": False, **changes}
    if "isGood" in changes:
        other["isGood"] = False
    path = write(
        style_file(base, 1), {"versions": [{**WEBHOOK_ENTRY, "isGood": changes.get("isGood", False)}, other]}
    )
    content = path.read_bytes()
    plan = planned(store, base)
    assert plan.groups == 0
    assert reason in plan.reviews[0].reason
    assert applied(store, base).changed == 0
    assert path.read_bytes() == content


def test_a_failed_training_is_not_completed_by_a_name(store: PlanStore, base: Path) -> None:
    failed = {**WEBHOOK_ENTRY, "status": "failed", "error": "Training failed"}
    del failed["loraUrl"]
    write(style_file(base, 1), {"versions": [failed, {**SYNCED_ENTRY, "name": failed["name"]}]})
    plan = planned(store, base)
    assert (plan.groups, plan.reviews) == (0, ())


def test_no_presigned_address_is_written_into_a_plan(store: PlanStore, base: Path) -> None:
    signed = {
        **SYNCED_ENTRY,
        "loraUrl": f"{SYNCED_ENTRY['loraUrl']}?X-Amz-Signature=c0ffee",
        "extra": "s3://b/k?X-Amz-Signature=c0ffee",
    }
    write(style_file(base, 1), {"versions": [{**WEBHOOK_ENTRY, "loraUrl": signed["loraUrl"]}, signed]})
    plan = planned(store, base)
    assert plan.groups == 1
    assert "c0ffee" not in store.file(plan.id).read_text()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(
        [
            WEBHOOK_ENTRY["id"],
            WEBHOOK_ENTRY["loraUrl"],
            SYNCED_ENTRY["loraUrl"],
            "0001-01-01T00:00:00+05:00",
            "9999-12-31T23:59:59-05:00",
            "\ud800",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_KEYS = (*WEBHOOK_ENTRY, *SYNCED_ENTRY, "error", "failedAt", "isGood", "mergedIds", "parameters.x", "own")
_odd_entries = st.builds(
    lambda base, without, changes: {
        **{key: value for key, value in base.items() if key not in without},
        **changes,
    },
    st.sampled_from([WEBHOOK_ENTRY, SYNCED_ENTRY]),
    st.sets(st.sampled_from(_KEYS), max_size=2),
    st.dictionaries(st.sampled_from(_KEYS), _json, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_odd_entries, max_size=4), st.sampled_from([None, 2, 4]))
def test_whatever_stands_in_the_entries_nothing_fails_and_no_id_is_lost(
    found: list[dict[str, Any]], indent: int | None
) -> None:
    with TemporaryDirectory() as folder:
        base, store = Path(folder) / "tree", PlanStore(Path(folder) / "home")
        path = style_file(base, 1)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"versions": found}, indent=indent))
        before = path.read_bytes()
        plan = planned(store, base)
        assert store.load(plan.id) == plan
        assert apply_plan(store, plan, now).refused == ()
        left = (
            {one for entry in entries(path) for one in (entry.get("id"), *entry.get(MERGED_IDS, ()))}
            if plan.files
            else None
        )
        if left is not None:
            assert {entry["id"] for entry in found} <= left
            assert plan_tree(base, RULES).groups == 0
            undo_plan(store, plan.id, now)
        assert path.read_bytes() == before


def test_thousands_of_entries_of_one_training_are_planned_at_once(store: PlanStore, base: Path) -> None:
    path = write(style_file(base, 1), {"versions": [WEBHOOK_ENTRY] * 8_000}, indent=None)
    started = time.process_time()
    assert applied(store, base).changed == 1
    assert time.process_time() - started < 6, "linear: ten times as many entries take ten times as long"
    assert entries(path) == [WEBHOOK_ENTRY]


def test_one_file_after_another_is_in_memory_however_large_they_are(store: PlanStore, base: Path) -> None:
    """Ten files of 8 MB: five at a time, and what rendering one of them takes."""
    for number in range(10):
        padded = {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY], "padding": "x" * 8_000_000}
        write(style_file(base, number), padded)
    plan = planned(store, base)
    tracemalloc.start()
    result = apply_plan(store, plan, now)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.changed == 10
    assert peak < 130_000_000


@pytest.mark.deep
def test_ten_thousand_files_with_known_truth(run: Run, tmp_path: Path) -> None:
    """As a person does it: every LoRA, every field and every id stays, no duplicate does, undo restores every byte."""
    base = tmp_path / "tree"
    truth = make_tree(base, 10_000, loras=4)
    before = snapshot(base)
    shown = run("dedupe", "--base-dir", str(base), "--json")
    assert (shown.code, shown.json["entries_to_remove"]) == (Exit.DRIFT, truth.duplicates)
    assert (shown.json["review"], shown.json["skipped"]) == ([], [])
    assert snapshot(base) == before
    assert run("dedupe", "--apply", "--plan", shown.json["id"]).code == Exit.FINE
    assert faults(truth) == []
    assert run("dedupe", "--base-dir", str(base)).code == Exit.FINE
    assert run("dedupe", "undo", shown.json["id"]).code == Exit.FINE
    assert snapshot(base) == before
