"""Applying and undoing a plan, killed before every single thing that is done to a file: run as a process of its own.

A process that has no threads yet forks a child for each point; the child kills itself there with SIGKILL.
`python -m lora_pipeline_tests.inventory.kill_points apply FOLDER` prints how many points there were, or what is wrong.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.plan_store import PlanRefused, PlanStore
from lora_pipeline.inventory.tree_deduplication import apply_plan, plan_tree, undo_plan
from lora_pipeline_tests.inventory.trees import Truth, faults, make_tree, snapshot

FILES = 2


def now() -> datetime:
    return datetime.now(UTC)


class Scene:
    """One tree before anything was done to it, with its plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base, self.store = folder / "tree", PlanStore(folder / "home")
        self.truth: Truth = make_tree(self.base, FILES)
        self.old = snapshot(self.base)
        self.plan = self.store.save(plan_tree(self.base, ObjectUrlRules()), now())
        assert len(self.plan.files) == FILES

    def apply(self) -> None:
        assert apply_plan(self.store, self.plan, now).refused == ()

    def apply_anew(self) -> str:
        plan = self.store.save(plan_tree(self.base, ObjectUrlRules()), now())
        assert apply_plan(self.store, plan, now).refused == ()
        return plan.id

    def undo(self, plan_id: str) -> None:
        try:
            assert undo_plan(self.store, plan_id, now).refused == ()
        except PlanRefused:
            assert self.store.journal(plan_id) == {}, "killed before anything was changed"

    def files(self) -> dict[str, bytes]:
        return {name: (self.base / name).read_bytes() for name in self.old}

    def left_over(self) -> list[Path]:
        return list(self.base.rglob("*.tmp"))


def killed(act: Callable[[], object], point: int) -> bool:
    """Do it in a child that dies before the `point`-th thing done to a file; whether it got that far."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, _arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "open" or event.startswith("os."):
                seen += 1
                if seen == point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        act()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed before it was killed"
    return os.WIFSIGNALED(status)


def main(what: str, folder: Path) -> int:
    finished = Scene(folder / "finished")
    finished.apply()
    new = finished.files()
    point = 0
    while True:
        point += 1
        scene = Scene(folder / str(point))
        if what == "undo":
            scene.apply()
        again = killed(scene.apply if what == "apply" else partial(scene.undo, scene.plan.id), point)
        wrong = [
            name for name, content in scene.files().items() if content not in (scene.old[name], new[name])
        ]
        assert not wrong, f"point {point}: half a file in {wrong}"
        _complete(scene, what, point, new)
        shutil.rmtree(scene.folder)
        if not again:
            return point - 1


def _complete(scene: Scene, what: str, point: int, new: dict[str, bytes]) -> None:
    """The next run completes: the same command again, or, every other time, a new plan and its undoing."""
    if what == "undo":
        scene.undo(scene.plan.id)
    elif point % 2:
        scene.apply()
        assert scene.files() == new, f"point {point}: not what an undisturbed run makes"
        assert faults(scene.truth) == []
        scene.undo(scene.plan.id)
    else:
        later = scene.apply_anew()
        assert faults(scene.truth) == []
        scene.undo(later)
        scene.undo(scene.plan.id)
    assert scene.left_over() == [], f"point {point}: a temporary file stays"
    assert snapshot(scene.base) == scene.old, f"point {point}: undo did not restore every byte"


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
