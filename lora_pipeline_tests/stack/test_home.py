"""One stack a home, ports that are free, and Dagster's folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lora_pipeline.settings import RunningStack, Settings
from lora_pipeline.stack.errors import StackRunning
from lora_pipeline.stack.home import (
    PROJECT,
    HomeLock,
    forget_running_stack,
    prepare_dagster_home,
    write_running_stack,
)
from lora_pipeline.stack.ports import PortTaken, choose_ports, is_free


def test_a_second_stack_is_told_where_the_first_is(tmp_path: Path) -> None:
    first = HomeLock(tmp_path)
    write_running_stack(
        tmp_path,
        RunningStack(pid=os.getpid(), dagster_url="http://127.0.0.1:3123", api_url="http://127.0.0.1:8123"),
    )
    with pytest.raises(StackRunning, match=rf"process {os.getpid()}\): Dagster http://127.0.0.1:3123"):
        HomeLock(tmp_path)
    first.release()

    HomeLock(tmp_path).release()


def test_a_home_stays_locked_until_the_children_of_a_killed_stack_have_ended(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
from pathlib import Path
from lora_pipeline.stack.home import HomeLock
lock = HomeLock(Path({str(tmp_path)!r}))
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read(1); open('ended', 'w')"],
                         pass_fds=[lock.descriptor], cwd={str(tmp_path)!r})
"""
    ours, theirs = socket.socketpair()
    subprocess.run([sys.executable, "-c", code], stdin=theirs.fileno(), check=True)
    theirs.close()
    with pytest.raises(BlockingIOError):
        _try_lock(tmp_path)
    # Its child ends now, while the second stack waits.
    ours.close()

    HomeLock(tmp_path).release()
    assert (tmp_path / "ended").exists()


def _try_lock(home: Path) -> None:
    import fcntl

    with (home / "stack.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_a_stack_runs_is_read_by_the_settings_and_forgotten(tmp_path: Path) -> None:
    stack = RunningStack(
        pid=1, dagster_url="http://d", api_url="http://a", simulator_url="http://127.0.0.1:9"
    )
    write_running_stack(tmp_path, stack)
    assert Settings(home=tmp_path).running_stack == stack

    forget_running_stack(tmp_path)
    forget_running_stack(tmp_path)
    assert Settings(home=tmp_path).running_stack is None


def test_dagster_reads_the_project_s_own_file_unless_there_is_another(tmp_path: Path) -> None:
    folder = prepare_dagster_home(tmp_path)
    assert (folder / "dagster.yaml").resolve() == PROJECT / "dagster.yaml"

    (folder / "dagster.yaml").unlink()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}")
    prepare_dagster_home(tmp_path)
    assert not (folder / "dagster.yaml").is_symlink()


def test_a_taken_port_is_replaced_and_remembered(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert not is_free(taken)
        (tmp_path / "ports.json").write_text(f'{{"dagster": {taken}}}')
        chosen = choose_ports(tmp_path, {})
    assert taken not in chosen.values()
    assert len(set(chosen.values())) == 3
    assert choose_ports(tmp_path, {}) == chosen


def test_a_taken_port_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"got port {taken} for api"):
            choose_ports(tmp_path, {"api": taken})


def test_a_damaged_memory_of_ports_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('["not", "ports"]')
    assert set(choose_ports(tmp_path, {})) == {"dagster", "api", "simulator"}
