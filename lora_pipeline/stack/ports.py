"""Which ports the stack listens on: the asked one, else last time's, else the usual one, else a free one."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

USUAL = {"dagster": 3000, "api": 8010, "simulator": 8787}


class PortTaken(Exception):
    """A port that was asked for by number belongs to another program."""


def choose_ports(home: Path, asked: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each service of `USUAL`, remembered in the home.

    Last time's come before the usual ones: links that were stored or bookmarked, and the addresses that a
    simulated provider has given out, hold on after a restart. Raises PortTaken where an asked one is not free.
    """
    memory = home / "ports.json"
    last = _remembered(memory)
    chosen: dict[str, int] = {}
    for service, usual in USUAL.items():
        wanted = asked.get(service)
        if wanted and not is_free(wanted):
            raise PortTaken(
                f"got port {wanted} for {service}, but another program listens there. "
                "Choose another, or leave the option out: a free one is found"
            )
        candidates = [wanted] if wanted else [last.get(service, usual), usual]
        free = [port for port in candidates if port and port not in chosen.values() and is_free(port)]
        chosen[service] = free[0] if free else _any_free_port()
    _write_json(memory, chosen)
    return chosen


def is_free(port: int) -> bool:
    """Whether this machine's loopback interface has the port to give."""
    with socket.socket() as probe:
        # As the servers bind: a connection of an ended server that still lingers takes nothing away.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _remembered(memory: Path) -> dict[str, int]:
    try:
        found = json.loads(memory.read_text())
        return {str(name): int(port) for name, port in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
