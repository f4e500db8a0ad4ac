"""Whether the services of a stack answer and work, asked over HTTP.

`dagster dev` ends with code 0 when its daemon dies, and a daemon that hangs does not end at all: so Dagster is
asked for its daemons' heartbeats rather than watched as a process.
"""

from __future__ import annotations

import time
from typing import Any

import httpx

STALE_HEARTBEAT_S = 150.0
"""A daemon reports every 30 s; Dagster itself calls it unhealthy after half an hour, which is too late to act."""
_TIMEOUT_S = 5.0
# Daemons without which nothing moves.
_NEEDED = frozenset({"SENSOR", "QUEUED_RUN_COORDINATOR"})

_DAEMONS = "{instance {daemonHealth {allDaemonStatuses {daemonType required lastHeartbeatTime}}}}"
_LOCATIONS = (
    "{workspaceOrError {__typename ... on Workspace {locationEntries {name loadStatus locationOrLoadError "
    "{__typename ... on PythonError {message}}}} ... on PythonError {message}}}"
)


class Unreachable(Exception):
    """The service does not answer (yet)."""


def answers(url: str) -> bool:
    """Whether a GET of the URL succeeds."""
    try:
        return httpx.get(url, timeout=_TIMEOUT_S).is_success
    except httpx.HTTPError:
        return False


def load_error(dagster_url: str) -> str | None:
    """Why Dagster could not load our definitions; None where it could. Unreachable while it is still loading."""
    found = _query(dagster_url, _LOCATIONS)["workspaceOrError"]
    if found["__typename"] == "PythonError":
        return str(found["message"])
    entries = found["locationEntries"]
    if not entries or any(entry["loadStatus"] == "LOADING" for entry in entries):
        raise Unreachable("the code location is still loading")
    for entry in entries:
        state = entry["locationOrLoadError"]
        if state and state["__typename"] == "PythonError":
            return str(state["message"])
    return None


def silent_daemons(dagster_url: str, since: float) -> list[str]:
    """Daemons that we need and that have not reported lately, or not at all since `since` (seconds of the epoch)."""
    statuses = _query(dagster_url, _DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    heartbeats = {status["daemonType"]: status["lastHeartbeatTime"] or 0.0 for status in statuses}
    oldest = max(since, time.time() - STALE_HEARTBEAT_S)
    return sorted(name for name in _NEEDED if heartbeats.get(name, 0.0) < oldest)


def _query(dagster_url: str, query: str) -> dict[str, Any]:
    try:
        answer = httpx.post(f"{dagster_url}/graphql", json={"query": query}, timeout=_TIMEOUT_S)
        data: dict[str, Any] = answer.raise_for_status().json()["data"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"Dagster's webserver at {dagster_url} does not answer: {error!r}") from error
    return data
