"""How the command line starts: quickly, and without what the command does not need."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from lora_pipeline.cli.main import COMMANDS
from lora_pipeline_tests.cli.conftest import Run, python

_HEAVY = ("dagster", "sqlalchemy", "pandas", "numpy", "PIL", "httpx", "fastapi", "pydantic", "rich", "boto3")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {_HEAVY!r} if m in sys.modules]))\n"
        "from lora_pipeline.cli.main import main\n"
        f"main({arguments!r})"
    )
    ended = subprocess.run(python(code), capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "LOADED []"
    assert "Usage: " in ended.stdout


def test_help_starts_within_200_ms_of_processor_time() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "lora_pipeline.cli.main", "--help"]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.2


def test_help_names_every_command(run: Run) -> None:
    ended = run("--help")

    assert ended.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in ended.out


def test_an_unknown_command_is_wrong_use(run: Run) -> None:
    ended = run("fly")

    assert ended.code == 2
    assert "fly" in ended.err
