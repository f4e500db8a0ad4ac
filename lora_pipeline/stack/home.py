"""The home folder of a stack: one stack a home, where it can be reached, and Dagster's own folder in it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from lora_pipeline.settings import RunningStack
from lora_pipeline.stack.errors import StackError, StackRunning
from lora_pipeline.stack.processes import GRACE_S

PROJECT = Path(__file__).resolve().parents[2]
"""The folder with workspace.yaml and dagster.yaml."""
STACK_FILE = "stack.json"
_ENDING_S = GRACE_S + 10


class HomeLock:
    """Held while a stack works on a home: by the stack, and by the guards of its children.

    So a stack that was killed leaves the home locked until the last of its children is gone.
    """

    def __init__(self, home: Path) -> None:
        """Take the lock, or wait for the children of a stack that died. StackRunning where one is alive."""
        home.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take(home)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        os.close(self.descriptor)

    def _take(self, home: Path) -> None:
        deadline = time.monotonic() + _ENDING_S
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self._holder()
                if holder and _alive(holder):
                    raise StackRunning(_where(home, holder)) from None
                if time.monotonic() > deadline:
                    raise StackRunning(
                        f"processes of an earlier stack still work on {home}; look for them with: "
                        "ps -ef | grep lora_pipeline"
                    ) from None
                time.sleep(0.2)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)

    def _holder(self) -> int | None:
        text = os.pread(self.descriptor, 20, 0).decode(errors="replace")
        return int(text) if text.isdigit() else None


def write_running_stack(home: Path, stack: RunningStack) -> None:
    """Say where the stack can be reached; readers see all of it or nothing."""
    temporary = home / f"{STACK_FILE}.tmp"
    temporary.write_text(stack.model_dump_json(indent=2))
    temporary.replace(home / STACK_FILE)


def forget_running_stack(home: Path) -> None:
    (home / STACK_FILE).unlink(missing_ok=True)


def prepare_dagster_home(home: Path) -> Path:
    """The folder for DAGSTER_HOME, with the project's dagster.yaml linked into it. A file of one's own is kept."""
    for name in ("workspace.yaml", "dagster.yaml"):
        if not (PROJECT / name).is_file():
            raise StackError(
                f"{PROJECT} has no {name}: the embedded stack runs from a checkout of the project. "
                "Clone it and start `lora-pipeline up` there"
            )
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "dagster.yaml"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(PROJECT / "dagster.yaml")
    return folder


def _where(home: Path, holder: int) -> str:
    from lora_pipeline.settings import Settings

    running = Settings(home=home).running_stack
    at = f": Dagster {running.dagster_url}, HTTP {running.api_url}" if running else ""
    return (
        f"a stack already works on {home} (process {holder}){at}. Use that one, stop it with Ctrl-C or "
        f"`kill {holder}`, or choose another home with LORA_HOME"
    )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
