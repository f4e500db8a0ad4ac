"""Children of the stack surely end, with everything that they started: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_pipeline.stack.processes import GUARD, GuardedProcess

# A child that ends when interrupted, with a grandchild in its group that ignores every polite signal.
_FAMILY = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15, 1)]; time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-c", stubborn])
print("born", os.getpid(), grandchild.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
"""


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def gone(process: int) -> bool:
    """Whether the process has ended (a zombie that nobody has asked about yet has)."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        # Ended between the two looks; or a system without /proc, where the first look has to do.
        return Path("/proc/self").exists()
    return state == "Z"


def born(log: Path) -> list[int]:
    """Process ids of child and grandchild, once both live."""
    eventually(lambda: log.exists() and "born" in log.read_text())
    line = next(line for line in log.read_text().splitlines() if line.startswith("born"))
    return [int(word) for word in line.split()[1:]]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[GuardedProcess]:
    process = GuardedProcess(
        "family",
        [sys.executable, "-c", _FAMILY],
        environment=os.environ,
        folder=tmp_path,
        log=tmp_path / "family.log",
    )
    yield process
    process.ask_to_end()
    process.wait()


def test_asked_to_end_a_child_ends_politely_and_its_group_with_it(family: GuardedProcess) -> None:
    processes = born(family.log)
    family.ask_to_end()
    family.wait()

    assert family.ended
    assert "interrupted" in family.log.read_text()
    eventually(lambda: all(gone(process) for process in processes))


def test_a_child_that_dies_is_noticed_and_its_group_is_ended(family: GuardedProcess) -> None:
    child, grandchild = born(family.log)
    os.kill(child, signal.SIGKILL)

    eventually(lambda: family.ended)
    eventually(lambda: gone(grandchild))


def test_the_log_s_end_is_of_this_start_and_without_colours(tmp_path: Path) -> None:
    log = tmp_path / "old.log"
    log.write_text("from an earlier start\n")
    code = r"print('\x1b[32m' + 'green' + '\x1b[0m'); print('last')"
    process = GuardedProcess(
        "short", [sys.executable, "-c", code], environment=os.environ, folder=tmp_path, log=log
    )
    eventually(lambda: process.ended)

    assert process.log_tail() == "green\nlast"
    process.ask_to_end()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_ends_in_any_way_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    log = tmp_path / "family.log"
    parent = f"""
import os, sys, time
from pathlib import Path
from lora_pipeline.stack.processes import GuardedProcess
GuardedProcess("family", [sys.executable, "-c", {_FAMILY!r}], environment=os.environ,
               folder=Path({str(tmp_path)!r}), log=Path({str(log)!r}))
time.sleep(600)
"""
    running = subprocess.Popen([sys.executable, "-c", parent])
    processes = born(log)
    running.send_signal(how)
    running.wait(20)

    eventually(lambda: all(gone(process) for process in processes))


def test_a_child_can_be_interrupted_even_where_its_parent_could_not(tmp_path: Path) -> None:
    log = tmp_path / "family.log"
    leash, hold = os.pipe()
    with log.open("wb") as output:
        guard = subprocess.Popen(
            [sys.executable, "-I", str(GUARD), str(leash), "10", sys.executable, "-c", _FAMILY],
            stdout=output,
            pass_fds=(leash,),
            start_new_session=True,
            # As a background job of a script inherits it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    os.close(leash)
    processes = born(log)
    guard.terminate()

    assert guard.wait(20) == 7
    assert "interrupted" in log.read_text()
    eventually(lambda: all(gone(process) for process in processes))
    os.close(hold)
