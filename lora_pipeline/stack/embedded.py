"""Starting, watching and ending the embedded stack as a whole."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lora_pipeline.settings import RunningStack, Settings
from lora_pipeline.stack.errors import StackError
from lora_pipeline.stack.health import Unreachable, answers, load_error, silent_daemons
from lora_pipeline.stack.home import (
    PROJECT,
    HomeLock,
    forget_running_stack,
    prepare_dagster_home,
    write_running_stack,
)
from lora_pipeline.stack.ports import choose_ports
from lora_pipeline.stack.processes import GuardedProcess

START_TIMEOUT_S = 180.0
READY_EVERY_S = 1.0
HEALTH_EVERY_S = 20.0
# One missed look may be a busy minute or a laptop that slept.
SILENT_LOOKS = 3


@dataclass(frozen=True)
class StackOptions:
    """What a person can choose about a stack."""

    ports: Mapping[str, int | None] = field(default_factory=dict)
    """Service → port, where one was asked for."""
    simulator_speed: float = 60.0
    """Seconds of a simulated training's life in a second."""


class EmbeddedStack:
    """Context manager around a running stack. The environment of this process is what the children get.

    with EmbeddedStack(Settings(), StackOptions()) as stack:
        stack.wait_until_ready()
        …
        stack.check()
    """

    def __init__(
        self, settings: Settings, options: StackOptions, say: Callable[[str], object] = lambda _: None
    ) -> None:
        self.settings = settings
        self.options = options
        self.logs = settings.home / "logs"
        self.simulated = not (
            settings.replicate_api_token and settings.replicate_api_token.get_secret_value()
        )
        self._say = say
        self._children: list[GuardedProcess] = []
        self.ready = False
        """Whether everything has answered once."""
        self._silent = 0
        self._next_look = 0.0
        self._began = 0.0

    def __enter__(self) -> Self:
        """Take the home, bring the database up to date, start everything. Returns before all of it answers."""
        home = self.settings.home
        self._lock = HomeLock(home)
        try:
            self.logs.mkdir(exist_ok=True)
            if self.settings.inbox is None:
                # It is shown as the place for photographs: `cp -r photos INBOX` into no folder would become it.
                Path(self.settings.resolved_inbox).mkdir(exist_ok=True)
            self._upgrade_database()
            dagster_home = prepare_dagster_home(home)
            ports = choose_ports(home, self.options.ports)
            self.running = RunningStack(
                pid=os.getpid(),
                dagster_url=f"http://127.0.0.1:{ports['dagster']}",
                api_url=f"http://127.0.0.1:{ports['api']}",
                simulator_url=f"http://127.0.0.1:{ports['simulator']}" if self.simulated else None,
            )
            # Before Dagster starts: its sensors read here where the simulator is.
            write_running_stack(home, self.running)
            self._began = time.time()
            self._start_children(ports, dagster_home)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def wait_until_ready(self) -> None:
        """Until every service answers, our definitions are loaded and the daemon has reported."""
        while not self.ready:
            self.check()
            time.sleep(0.5)

    def check(self) -> None:
        """Raise StackError where a part has ended, hangs, or does not come up. Cheap enough for every second."""
        for child in self._children:
            if child.ended:
                raise StackError(
                    f"{child.name} has ended unexpectedly. The end of {child.log}:\n{child.log_tail()}"
                )
        if time.monotonic() < self._next_look:
            return
        if self.ready:
            self._next_look = time.monotonic() + HEALTH_EVERY_S
            self._look_for_silence()
        else:
            self._next_look = time.monotonic() + READY_EVERY_S
            self._look_for_readiness()

    def _look_for_readiness(self) -> None:
        waiting = self._not_ready()
        self.ready = waiting is None
        if time.time() - self._began > START_TIMEOUT_S and not self.ready:
            raise StackError(f"not ready after {START_TIMEOUT_S:.0f} s: {waiting}. Logs: {self.logs}")

    def _look_for_silence(self) -> None:
        try:
            silent = silent_daemons(self.running.dagster_url, 0.0)
            trouble = f"Dagster's daemons {', '.join(silent)} do not report any more" if silent else None
        except Unreachable as error:
            trouble = str(error)
        self._silent = self._silent + 1 if trouble else 0
        if trouble and self._silent >= SILENT_LOOKS:
            raise StackError(f"{trouble}. Log: {self.logs / 'dagster.log'}")

    def _upgrade_database(self) -> None:
        from lora_pipeline.database.migrate import upgrade
        from lora_pipeline.database.sessions import Database

        database = Database(self.settings.resolved_database_url)
        try:
            upgrade(database)
        finally:
            database.close()

    def _start_children(self, ports: Mapping[str, int], dagster_home: Path) -> None:
        ours = [sys.executable, "-m", "lora_pipeline.cli.main"]
        if self.simulated:
            state = str(self.settings.home / "simulator")
            speed = str(self.options.simulator_speed)
            simulator = ["simulator", "--port", str(ports["simulator"]), "--state", state, "--speed", speed]
            self._start("simulator", [*ours, *simulator])
        self._start("api", [*ours, "api", "--host", "127.0.0.1", "--port", str(ports["api"])])
        dagster = [sys.executable, "-m", "dagster", "dev", "-w", str(PROJECT / "workspace.yaml")]
        listening = ["-h", "127.0.0.1", "-p", str(ports["dagster"])]
        self._start("dagster", [*dagster, *listening], dagster_home, {"DAGSTER_HOME": str(dagster_home)})

    def _start(
        self, name: str, command: list[str], folder: Path = PROJECT, extra: Mapping[str, str] | None = None
    ) -> None:
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "LORA_HOME": str(self.settings.home),
            # The tick budget assumes it.
            "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "60",
            # `dagster dev` announces its successor in every log; both work here.
            "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded",
            **(extra or {}),
        }
        child = GuardedProcess(
            name,
            command,
            environment=environment,
            folder=folder,
            log=self.logs / f"{name}.log",
            keep_open=(self._lock.descriptor,),
        )
        self._children.append(child)
        self._say(f"starting {name} (log {child.log})")

    def _not_ready(self) -> str | None:
        """What is still being waited for."""
        running = self.running
        services = {"the HTTP server": f"{running.api_url}/healthz"}
        if running.simulator_url:
            services["the simulator"] = f"{running.simulator_url}/simulator"
        for name, url in services.items():
            if not answers(url):
                return f"{name} at {url} does not answer"
        try:
            error = load_error(running.dagster_url)
            silent = silent_daemons(running.dagster_url, self._began)
        except Unreachable as unreachable:
            return str(unreachable)
        if error is not None:
            raise StackError(f"Dagster cannot load the definitions: {error}")
        return f"Dagster's daemons {', '.join(silent)} have not reported yet" if silent else None

    def _end(self) -> None:
        """Everything at once, then wait: nothing of the stack outlives this."""
        for child in self._children:
            child.ask_to_end()
        for child in self._children:
            child.wait()
        if hasattr(self, "running"):
            forget_running_stack(self.settings.home)
        self._lock.release()
