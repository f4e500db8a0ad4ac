"""Runs that are killed, and runs that meet: a file is the old one or the new one, and the next run completes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.plan_store import PlanStore
from lora_pipeline.inventory.tree_deduplication import apply_plan, plan_tree, undo_plan
from lora_pipeline_tests.inventory.test_trees import now
from lora_pipeline_tests.inventory.trees import Truth, faults, make_tree, snapshot

_RUN = """
import sys
from pathlib import Path
from lora_pipeline.inventory.plan_store import PlanStore
from lora_pipeline.inventory.tree_deduplication import apply_plan, undo_plan
from lora_pipeline_tests.inventory.test_trees import now
store, plan, what = PlanStore(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
print("ready", flush=True)
print((apply_plan(store, store.load(plan), now) if what == "apply" else undo_plan(store, plan, now)).changed)
"""


def _start(home: Path, plan_id: str, what: str = "apply") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(home), plan_id, what], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _wait_until_changed(
    base: Path, before: dict[str, bytes], process: subprocess.Popen[str], count: int
) -> None:
    files = [base / name for name in before]
    while process.poll() is None:
        if sum(file.read_bytes() != before[str(file.relative_to(base))] for file in files) >= count:
            return
        time.sleep(0.001)


def _old_or_new(base: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    for name, content in old.items():
        assert (base / name).read_bytes() in (content, new[name])
        json.loads((base / name).read_bytes())


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Truth, dict[str, bytes], dict[str, bytes]]:
    """A tree, its truth, and its files before and after deduplication."""
    truth = make_tree(tmp_path / "tree", 60)
    make_tree(tmp_path / "twin", 60)
    before = snapshot(tmp_path / "tree")
    store = PlanStore(tmp_path / "twin-home")
    apply_plan(store, store.save(plan_tree(tmp_path / "twin", ObjectUrlRules()), now()), now)
    after = snapshot(tmp_path / "twin")
    return tmp_path / "tree", truth, before, {name: after[name] for name in before}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process needs no disk, and a hundred of them wait for it."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="lora-", dir=shared) as folder:
        yield Path(folder)


@pytest.mark.parametrize(("what", "least"), [("apply", 40), ("undo", 25)])
def test_killed_before_each_thing_that_is_done_to_a_file(memory: Path, what: str, least: int) -> None:
    assert _points("kill_points", what, memory) > least


@pytest.mark.parametrize(
    ("kind", "least"), [("commits", 8), pytest.param("statements", 100, marks=pytest.mark.deep)]
)
def test_killed_while_versions_of_the_registry_are_merged(
    memory: Path, sqlite_template: Path, kind: str, least: int
) -> None:
    shutil.copyfile(sqlite_template, memory / "fresh.sqlite3")
    assert _points("registry_kill_points", kind, memory) >= least


def _points(module: str, what: str, folder: Path) -> int:
    """How many moments to be killed at were tried."""
    ended = subprocess.run(
        [sys.executable, "-m", f"lora_pipeline_tests.inventory.{module}", what, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


def test_a_killed_run_leaves_each_file_old_or_new_and_the_next_completes(
    tree: tuple[Path, Truth, dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    count = 20
    base, truth, old, new = tree
    store = PlanStore(tmp_path / "home")
    plan = store.save(plan_tree(base, ObjectUrlRules()), now())
    process = _start(tmp_path / "home", plan.id)
    _wait_until_changed(base, old, process, count)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _old_or_new(base, old, new)

    result = apply_plan(store, store.load(plan.id), now)
    assert result.refused == ()
    assert faults(truth) == []
    assert {name: (base / name).read_bytes() for name in old} == new
    assert not list(base.rglob("*.tmp"))

    undoing = _start(tmp_path / "home", plan.id, "undo")
    _wait_until_changed(base, new, undoing, count)
    os.kill(undoing.pid, signal.SIGKILL)
    undoing.wait()
    _old_or_new(base, old, new)
    assert undo_plan(store, plan.id, now).refused == ()
    assert snapshot(base) == old


def test_after_a_killed_run_a_new_plan_completes_too(
    tree: tuple[Path, Truth, dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    base, truth, old, _ = tree
    store = PlanStore(tmp_path / "home")
    process = _start(tmp_path / "home", store.save(plan_tree(base, ObjectUrlRules()), now()).id)
    _wait_until_changed(base, old, process, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = apply_plan(store, store.save(plan_tree(base, ObjectUrlRules()), now()), now)
    assert result.refused == ()
    assert faults(truth) == []


def test_two_runs_at_once_do_no_harm(
    tree: tuple[Path, Truth, dict[str, bytes], dict[str, bytes]], tmp_path: Path
) -> None:
    base, truth, old, new = tree
    homes = [tmp_path / "one", tmp_path / "other"]
    plans = [PlanStore(home).save(plan_tree(base, ObjectUrlRules()), now()) for home in homes]
    runs = [_start(home, plan.id) for home, plan in zip(homes, plans, strict=True)]
    same = _start(homes[0], plans[0].id)
    for run in (*runs, same):
        run.communicate(timeout=60)
        assert run.returncode == 0
    assert faults(truth) == []
    assert {name: (base / name).read_bytes() for name in old} == new
