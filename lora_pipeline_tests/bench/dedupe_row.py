"""Deduplicating 10,000 files with 100,000 entries, against loading and dumping the same tree with `json`.

The tree is generated with known truth: duplicates in eight URL spellings, look-alikes in other folders, verdicts on
the poorer copy. Speed counts for nothing where a LoRA, a verdict or a byte is lost, so that is a row of its own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.plan_store import PlanStore
from lora_pipeline.inventory.tree_deduplication import apply_plan, plan_tree, undo_plan
from lora_pipeline_tests.bench.rows import BenchRow
from lora_pipeline_tests.inventory.trees import Truth, faults, make_tree, snapshot

SIZES, QUICK_SIZES = (1_000, 3_000, 10_000), (50, 100, 200)
LORAS_A_FILE = 4
"""With their copies, a look-alike and a failed training: 10 entries a file."""
DRY_RUN, APPLY = 1.5, 4.0
ROUNDS = 3
"""The best of each counts: what else the machine does is not measured."""


class _Measured(NamedTuple):
    files: int
    entries: int
    duplicates: int
    plain: float
    dry_run: float
    apply: float
    wrong: list[str]


def run(quick: bool) -> list[BenchRow]:
    measured = [_measure(size) for size in (QUICK_SIZES if quick else SIZES)]
    last = measured[-1]
    what = f"{last.files:,} files with {last.entries:,} entries, {last.duplicates:,} of them duplicates"
    wrong = [fault for one in measured for fault in one.wrong]
    return [
        _row(f"dedupe {what}: dry run", measured, DRY_RUN, lambda one: one.dry_run),
        _row(f"dedupe {what}: plan and apply", measured, APPLY, lambda one: one.apply),
        BenchRow(
            "dedupe: LoRAs lost, duplicates left, fields lost, bytes not restored by undo",
            str(len(wrong)),
            "known truth of the generated tree",
            None,
            "0",
            ok=not wrong,
            note="; ".join(wrong[:3]),
        ),
    ]


def _row(
    what: str, measured: list[_Measured], budget: float, seconds: Callable[[_Measured], float]
) -> BenchRow:
    last = measured[-1]
    curve = ", ".join(f"{one.files:,}: {1000 * seconds(one) / one.files:.2f} ms" for one in measured)
    ratio = seconds(last) / last.plain
    return BenchRow(
        what,
        f"{seconds(last):.1f} s",
        f"json load and dump {last.plain:.1f} s",
        ratio,
        f"≤ {budget:g} ×",
        ok=ratio <= budget,
        note=f"a file, at three sizes: {curve}; best of {ROUNDS} rounds, each planned, applied and undone",
    )


def _measure(files: int) -> _Measured:
    with TemporaryDirectory(prefix="lora-bench-") as folder:
        base = Path(folder) / "tree"
        truth = make_tree(base, files, LORAS_A_FILE)
        before = snapshot(base)
        store = PlanStore(Path(folder) / "home")
        plain, dry_runs, applies, wrong = [], [], [], []
        for _ in range(ROUNDS):
            plain.append(_load_and_dump(truth, Path(folder) / "plain"))
            started = time.perf_counter()
            plan = store.save(plan_tree(base, ObjectUrlRules()), _now())
            dry_runs.append(time.perf_counter() - started)
            result = apply_plan(store, plan, _now)
            applies.append(time.perf_counter() - started)
            wrong += [*faults(truth), *(f"{item.path}: {item.reason}" for item in result.refused)]
            undo_plan(store, plan.id, _now)
            if snapshot(base) != before:
                wrong.append("undo did not restore every byte")
        return _Measured(
            files, truth.entries, truth.duplicates, min(plain), min(dry_runs), min(applies), wrong
        )


def _load_and_dump(truth: Truth, target: Path) -> float:
    """The least that any clean-up does: read each file, parse it, write it as it is written, elsewhere."""
    target.mkdir()
    started = time.perf_counter()
    for number, path in enumerate(truth.files):
        with path.open() as file:
            value = json.load(file)
        with (target / f"{number}.json").open("w") as file:
            json.dump(value, file, indent=2, ensure_ascii=False)
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def _now() -> datetime:
    return datetime.now(UTC)
