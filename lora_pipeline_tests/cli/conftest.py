"""The command line as tests call it: in this process, with the exit code and what was written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.main import main
from lora_pipeline.simulator.running import RunningSimulator


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and an environment without any setting."""
    for name in ("DATABASE_URL", "REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "LORA_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `lora-pipeline` with these arguments."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        written = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(int(code), written.out, written.err)

    return run


@pytest.fixture
def at_simulator(simulator: RunningSimulator, monkeypatch: pytest.MonkeyPatch) -> RunningSimulator:
    """The settings lead to a simulated provider, and the demo's thresholds apply."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_test")
    monkeypatch.setenv("REPLICATE_BASE_URL", simulator.url)
    monkeypatch.setenv("LORA_IMAGE_PROFILE", "demo")
    return simulator


def python(code: str, *options: str) -> list[str]:
    """The command that runs this code in an interpreter of its own."""
    return [sys.executable, *options, "-c", code]
