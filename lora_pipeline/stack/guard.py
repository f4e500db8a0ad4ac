"""Runs one command in a process group of its own and ends the whole group with it, or when the parent is gone.

A script for `python -I guard.py LEASH GRACE COMMAND…`, with nothing but the standard library. `LEASH` is the
reading end of a pipe whose writing end only the parent holds: the kernel closes that when the parent ends,
however it ends, on every Unix. Without a guard a killed parent would leave Dagster's grandchildren behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

_POLL_S = 0.05


def main(leash: int, grace: float, command: list[str]) -> int:
    """The command's exit code. `grace` is in seconds: between the polite signal and the killing of the group."""
    wake, asked = _watch_signals()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603 - the parent's own
    try:
        _wait(child, leash, wake, asked)
        if child.poll() is None:
            _end_politely(child, grace)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    return child.wait()


def _watch_signals() -> tuple[int, list[int]]:
    """A pipe that becomes readable on any signal, and the list that fills with requests to end.

    Handlers, and not SIG_IGN, also because a child inherits what is ignored: started with `&` from a script
    SIGINT would be ignored, and Dagster treats SIGTERM as whatever SIGINT is.
    """
    asked: list[int] = []
    wake, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    return wake, asked


def _wait(child: subprocess.Popen[bytes], leash: int, wake: int, asked: list[int]) -> None:
    """Until the child has ended, the parent is gone, or somebody asks to end."""
    while child.poll() is None and not asked:
        ready, _, _ = select.select([leash, wake], [], [])
        if wake in ready:
            os.read(wake, 512)
        if leash in ready and not os.read(leash, 1):
            return


def _end_politely(child: subprocess.Popen[bytes], grace: float) -> None:
    child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
