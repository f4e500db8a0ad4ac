"""`/metrics`: figures for Prometheus, in its text format."""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from lora_pipeline.api.authentication import Credentials, administrator, from_this_machine, known_caller
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.trainings.figures import Figures, figures
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.sync_status import ReportOptions, sync_status

router = APIRouter(tags=["health"])

_DRIFT_FOR_S = 60.0


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request, services: Shared, credentials: Credentials) -> PlainTextResponse:
    """Open trainings, owed events and callbacks, drift as last seen, requests. An administrator's key opens it,
    and on a server that only this machine can reach no key is needed."""
    if not from_this_machine(request, services):
        administrator(known_caller(request, services, credentials))
    connections = services.connections
    found = figures(connections.database, connections.now())
    if connections.settings.callback_url is None:
        found = replace(found, owed_callbacks=0, failing_callbacks=0)  # nobody is told, so nothing is owed
    lines = _figures(found)
    lines += [
        "# HELP lora_models Models by verdict, as the provider was last seen.",
        "# TYPE lora_models gauge",
    ]
    lines += [f'lora_models{{verdict="{name}"}} {count}' for name, count in _drift(services).items()]
    lines += services.counts.lines()
    return PlainTextResponse("\n".join(lines) + "\n", HTTPStatus.OK, media_type="text/plain; version=0.0.4")


def _figures(found: Figures) -> list[str]:
    lines = ["# HELP lora_open_trainings Trainings that have not ended.", "# TYPE lora_open_trainings gauge"]
    lines += [
        f'lora_open_trainings{{state="{name}"}} {count}' for name, count in found.open_trainings.items()
    ]
    for name, value, what in (
        ("lora_owed_events", found.owed_events, "Asset events that Dagster has not been given."),
        ("lora_oldest_owed_event_seconds", found.oldest_owed_event_seconds, "Age of the oldest of them."),
        ("lora_waiting_webhooks", found.waiting_webhooks, "Deliveries that are not handled."),
        ("lora_owed_callbacks", found.owed_callbacks, "Callbacks that the application has not taken."),
        ("lora_failing_callbacks", found.failing_callbacks, "Of these, how many were tried in vain."),
        ("lora_given_up_callbacks", found.given_up_callbacks, "Callbacks that are not tried any more."),
    ):
        lines += [f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name} {value}"]
    return lines


def _drift(services: Services) -> dict[str, int]:
    """Models by verdict; every verdict is there. Reading all models takes a second at ten thousand: once a minute."""
    known = services.drift
    if known is None or time.monotonic() - known[0] > _DRIFT_FOR_S:
        counts = sync_status(services.connections, ReportOptions(remembered=True)).counts()
        known = services.drift = (
            time.monotonic(),
            {verdict.value: counts.get(verdict.value, 0) for verdict in Verdict},
        )
    return known[1]
