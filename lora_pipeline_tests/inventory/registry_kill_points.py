"""Merging and unmerging in the registry, killed before every commit, or every single statement: a process of its own.

`python -m lora_pipeline_tests.inventory.registry_kill_points commits FOLDER` prints how many points there were, or what
is wrong; `statements` is longer. FOLDER has an empty registry in fresh.sqlite3.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import event

from lora_pipeline.database.sessions import Database
from lora_pipeline.inventory.registry_merging import apply_registry_plan, undo_registry_plan
from lora_pipeline.inventory.registry_plan import load_plan, plan_registry
from lora_pipeline_tests.inventory.test_registry_duplicates import (
    LATER,
    RULES,
    add_listed_version,
    add_webhook_version,
    planned,
    remove_jobs,
)

LORAS = 2
_TABLES = (
    "model_versions",
    "version_aliases",
    "version_redirects",
    "activations",
    "user_models",
    "users",
    "inventory_objects",
    "lora_weights",
)
Rows = dict[str, list[dict[str, Any]]]


def opened(path: Path) -> Database:
    return Database(f"sqlite:///{path}")


def make(path: Path) -> str:
    """Every LoRA twice in an empty registry; the id of the plan for them."""
    database = opened(path)
    for number in range(1, LORAS + 1):
        key, place = f"style_{number}", f"b/{number}.safetensors"
        rich = add_webhook_version(database, key=key, weights_url=f"s3://{place}")
        poor = add_listed_version(database, key=key, weights_url=f"https://s3.amazonaws.com/{place}")
        remove_jobs(database, rich, poor)
    plan = planned(database)
    assert len(plan.groups) == LORAS
    database.close()
    return plan.id


def killed(path: Path, act: Callable[[Database], object], kind: str, point: int) -> bool:
    """Do it in a child that dies before its `point`-th statement or commit; whether it got that far."""
    child = os.fork()
    if child == 0:
        database, seen = opened(path), 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(database.engine, "commit", count)
        if kind == "statements":
            event.listen(database.engine, "before_cursor_execute", count)
        act(database)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed before it was killed"
    return os.WIFSIGNALED(status)


def main(kind: str, folder: Path) -> int:
    fresh, merged = folder / "fresh.sqlite3", folder / "merged.sqlite3"
    plan = make(fresh)
    shutil.copyfile(fresh, merged)

    def merge(database: Database) -> None:
        assert apply_registry_plan(database, load_plan(database, plan), LATER, "test").refused == ()

    def unmerge(database: Database) -> None:
        assert undo_registry_plan(database, load_plan(database, plan), LATER, "test").refused == ()

    before, after = facts(fresh), facts(merged, merge)
    points = 0
    for start, act, wanted in ((fresh, merge, after), (merged, unmerge, before)):
        point, again = 0, True
        while again:
            point += 1
            path = folder / "killed.sqlite3"
            shutil.copyfile(start, path)
            again = killed(path, act, kind, point)
            assert facts(path, act) == wanted, (
                f"{act.__name__}, point {point}: the next run does not complete"
            )
            assert facts(path, unmerge) == before, f"{act.__name__}, point {point}: undo does not restore"
        points += point - 1
    return points


def facts(path: Path, act: Callable[[Database], None] | None = None) -> Rows:
    """Every row that merging is about, after `act`; the database is at rest then."""
    if act is not None:
        database = opened(path)
        act(database)
        if act.__name__ == "merge":
            assert plan_registry(database, RULES, LATER).groups == ()
        database.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = {table: _rows(connection, table) for table in _TABLES}
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    return [
        {name: row[name] for name in row.keys() if name != "updated_at"}  # noqa: SIM118 - a Row iterates over values
        for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")
    ]


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
