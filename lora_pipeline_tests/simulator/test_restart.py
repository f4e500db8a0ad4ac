"""A simulator that is killed and started again on the same folder has forgotten nothing that was paid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from lora_pipeline_tests.simulator.conftest import CREATE, TOKEN, order

SCRIPT = """
import sys
from pathlib import Path
from lora_pipeline.simulator.server import serve
from lora_pipeline.simulator.settings import SimulatorSettings
settings = SimulatorSettings.for_tests(state=Path(sys.argv[1]), fetch_archives=False)
serve(settings, "127.0.0.1", int(sys.argv[2]))
"""

Start = Callable[[], tuple[subprocess.Popen[bytes], httpx.Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a real simulator process on this test's folder; kills what is left at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started: list[subprocess.Popen[bytes]] = []
    api = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"})

    def run() -> tuple[subprocess.Popen[bytes], httpx.Client]:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "state"), str(port)])
        started.append(process)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                api.get("/v1/account")
            except httpx.TransportError:
                assert process.poll() is None, "the simulator ended by itself"
                time.sleep(0.02)
            else:
                return process, api
        raise AssertionError("the simulator did not come up within 30 s")

    yield run
    api.close()
    for process in started:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_nothing_that_was_answered_is_forgotten_by_a_kill(start: Start) -> None:
    process, api = start()
    api.post("/simulator/versions", json={"models": {"acme/user-1-selfie-lora": []}})
    ids = [api.post(CREATE, json=order(f"t{n}")).json()["id"] for n in range(12)]
    file = api.post("/v1/files", files={"content": ("a.zip", b"12345")}).json()
    body = {"input": {"job_id": "t1", "max_train_steps": 6000}, "policy": {"executionTimeout": 2_400_000}}
    job = api.post("/v2/ep/run", json=body).json()["id"]
    api.post("/simulator/clock/advance", json={"seconds": 3000})
    before = api.get(f"/v1/trainings/{ids[0]}").json()
    job_before = api.get(f"/v2/ep/status/{job}").json()
    api.post("/simulator/faults", json={"place": "trainings.list", "kind": "answer", "status": 502})
    secret = api.get("/v1/webhooks/default/secret").json()
    kill(process)

    _, api = start()
    assert api.get("/v1/trainings").status_code == 502, "faults that were waiting still wait"
    assert [item["id"] for item in api.get("/v1/trainings").json()["results"]] == ids[::-1]
    after = api.get(f"/v1/trainings/{ids[0]}").json()
    assert after == before
    assert api.get(f"/v1/files/{file['id']}").json() == file
    assert api.get("/v1/webhooks/default/secret").json() == secret
    assert api.get("/simulator/paid").json()["count"] == 12
    assert api.get("/simulator/runpod/paid").json()["by_token"] == {"t1": 1}
    assert (api.get(f"/v2/ep/status/{job}").json(), job_before["status"]) == (job_before, "TIMED_OUT")
    assert len(httpx.get(after["output"]["weights"]).content) > 1000


def test_a_training_ends_while_the_simulator_is_down(start: Start) -> None:
    process, api = start()
    api.post("/simulator/versions", json={"models": {"acme/user-1-selfie-lora": []}})
    made = api.post(CREATE, json=order()).json()
    api.post("/simulator/settings", json={"speed": 20_000.0})
    kill(process)
    _, api = start()
    assert api.get(f"/v1/trainings/{made['id']}").json()["status"] == "succeeded"


def test_ctrl_c_ends_the_server_cleanly(start: Start) -> None:
    process, _ = start()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0
