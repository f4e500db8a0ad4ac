"""A simulator in a thread of this process, on a free port: for tests, notebooks and the demo.

with RunningSimulator() as simulator:
    client = replicate.Client(api_token="r8_any", base_url=simulator.url)
    …
    simulator.advance(3600)
    assert simulator.paid()["count"] == 1
"""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import httpx

from lora_pipeline.simulator.server import make_server
from lora_pipeline.simulator.settings import SimulatorSettings

START_TIMEOUT_S = 20.0


class RunningSimulator:
    """Context manager around a simulator that is up. Without settings: `SimulatorSettings.for_tests()`."""

    def __init__(
        self, settings: SimulatorSettings | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._server = make_server(settings or SimulatorSettings.for_tests(), host, port)
        self._host = host
        self._thread = threading.Thread(target=self._server.run, name="simulator", daemon=True)
        self._http = httpx.Client(timeout=60.0, verify=False)  # noqa: S501  loopback, no TLS: spares loading certificates
        self.url = ""

    def __enter__(self) -> Self:
        """Start, and wait until requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError(f"the simulator did not start within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{self._host}:{port}"
        self._http.base_url = httpx.URL(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait until the state is closed."""
        self._http.close()
        self._server.should_exit = True
        self._thread.join(timeout=START_TIMEOUT_S)

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """POST to `/simulator/{path}` with this JSON body; raises on an error, with the simulator's words."""
        answer = self._http.post(f"/simulator/{path}", json=body)
        if answer.is_error:
            raise ValueError(f"/simulator/{path} refused {body}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found

    def read(self, path: str) -> dict[str, Any]:
        """GET `/simulator/{path}`."""
        found: dict[str, Any] = self._http.get(f"/simulator/{path}").raise_for_status().json()
        return found

    def paid(self) -> dict[str, Any]:
        """`count`, `paid_twice` (ZIP path to number) and `trainings`, oldest first."""
        return self.read("paid")

    def requests(self) -> dict[str, int]:
        """Requests since the start or the last reset, by operation."""
        found: dict[str, int] = self.read("requests")["by_operation"]
        return found

    def fault(self, place: str, kind: str, **details: Any) -> None:
        """Let something go wrong at the next fitting occasion; see faults.Fault."""
        self.control("faults", place=place, kind=kind, **details)

    def advance(self, seconds: float) -> None:
        """Move the clock on by this many seconds of the trainings' life."""
        self.control("clock/advance", seconds=seconds)

    def reset(self) -> None:
        """Forget everything and take the settings of the start again: cheaper than a new simulator for each test."""
        self.control("reset")

    def settings(self, **changes: Any) -> None:
        """Change settings at run time."""
        self.control("settings", **changes)

    def paid_jobs(self) -> dict[str, Any]:
        """The same of RunPod: `count` (attempts), `by_token`, `paid_twice` (token to number) and `jobs`."""
        return self.read("runpod/paid")

    def end_job(self, job_id: str, outcome: str = "COMPLETED", **details: str) -> None:
        """End one open RunPod job now; `error` is the message of one that is FAILED."""
        self.control(f"runpod/jobs/{job_id}/end", outcome=outcome, **details)

    def end(self, training_id: str, outcome: str = "succeeded", error: str | None = None) -> None:
        """End one open training now."""
        self.control(f"trainings/{training_id}/end", outcome=outcome, error=error)
