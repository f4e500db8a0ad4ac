"""Erasures that are killed, and erasures that meet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Erasure
from lora_pipeline.erasure.carrying_out import carry_out
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.erasure.kill_points import opened
from lora_pipeline_tests.erasure.lives import OTHERS_FILE, USER, Traces, add_bookkeeping, drop_user, train


@pytest.mark.deep
def test_an_erasure_killed_before_any_commit_is_completed_by_the_next_run(
    tmp_path: Path, simulator: RunningSimulator, sqlite_template: Path
) -> None:
    simulator.settings(deletion_s=0)
    fresh = tmp_path / "fresh"
    (fresh / "inbox").mkdir(parents=True)
    shutil.copyfile(sqlite_template, fresh / "lora.sqlite3")
    connections = opened(fresh, simulator.url, timedelta(minutes=5))
    drop_user(connections)
    drop_user(connections, "user-50", "other", "other@example.org", OTHERS_FILE)
    train(connections, simulator)
    add_bookkeeping(connections)
    with connections.database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    connections.database.close()
    ended = subprocess.run(
        [sys.executable, "-m", "lora_pipeline_tests.erasure.kill_points", str(tmp_path), simulator.url],
        capture_output=True,
        text=True,
        env={
            name: value for name, value in os.environ.items() if not name.startswith(("LORA_", "DATABASE_"))
        },
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 40


@pytest.mark.deep
def test_two_erasures_of_one_user_at_once_are_one(connections: Connections, lived: Traces) -> None:
    def erase(_number: int) -> str:
        own = Connections(connections.settings)
        try:
            erasure_id, _ = begin_erasure(own, USER, "test")
            carry_out(own, erasure_id, forget_partition=lambda _: True)
            return erasure_id
        finally:
            own.database.close()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(erase, range(4)))) == 1
    with connections.database.read() as session:
        assert session.query(Erasure).one().completed_at is not None
