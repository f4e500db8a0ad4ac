"""Child processes that surely end: each under a guard, with its output in a log file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
GRACE_S = 10.0
"""A child that was asked to end may take this long. Runs of Dagster that are cut off are taken up again later."""
_TAIL_BYTES = 8_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class GuardedProcess:
    """One running child of the stack."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        keep_open: Sequence[int] = (),
    ) -> None:
        """Start `command` in `folder`. `keep_open`: descriptors that stay open until the child's group has ended."""
        self.name = name
        self.log = log
        leash, self._leash = os.pipe()
        self._log_start = log.stat().st_size if log.exists() else 0
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(  # noqa: S603 - our own interpreter and commands
                    [sys.executable, "-I", str(GUARD), str(leash), str(GRACE_S), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    cwd=folder,
                    start_new_session=True,
                    pass_fds=(leash, *keep_open),
                )
        finally:
            os.close(leash)

    @property
    def ended(self) -> bool:
        """Whether the child has ended. Inside a running stack that is trouble, whatever its exit code."""
        return self._guard.poll() is not None

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that this child has written since it was started."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(_COLOURS.sub("", text).splitlines()[-lines:]) or "(it wrote nothing)"

    def ask_to_end(self) -> None:
        """Let go of the leash; the guard does the rest. Does not wait."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def wait(self) -> None:
        """Until the child's whole group is gone."""
        try:
            self._guard.wait(timeout=GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
