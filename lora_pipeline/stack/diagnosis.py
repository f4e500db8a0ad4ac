"""Whether everything that operations need from outside is there: what `doctor` asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from lora_pipeline.connections import Connections
from lora_pipeline.database.migrate import head
from lora_pipeline.database.observing import observing_says
from lora_pipeline.database.sessions import shown_url
from lora_pipeline.objects import open_store
from lora_pipeline.providers.protocol import ProviderError, ProviderUnavailable, TrainingProvider
from lora_pipeline.settings import REPLICATE, RUNPOD, ProviderName, Settings, SettingsError
from lora_pipeline.stack.health import answers
from lora_pipeline.trainings.controls import submission_switch

_FREE_BYTES = 2 * 1024**3


class Health(StrEnum):
    """How one thing is, the best first."""

    FINE = "fine"
    NOTE = "note"
    """Works, and is worth knowing."""
    TRY_AGAIN = "try again"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    subject: str
    health: Health
    detail: str


def diagnose(connections: Connections) -> Iterator[Finding]:
    """Look at everything, one after the other; what is broken does not keep the rest from being looked at."""
    looks: dict[str, Callable[[Connections], Finding]] = {
        "home": _home,
        "database": _database,
        "object store": _object_store,
        "inbox": _inbox,
        "Replicate": _replicate,
        "RunPod": _runpod,
        "money guard": _money_guard,
        "stack": _stack,
    }
    for subject, look in looks.items():
        try:
            yield look(connections)
        except ProviderUnavailable as error:
            yield Finding(subject, Health.TRY_AGAIN, str(error))
        except Exception as error:  # noqa: BLE001 - one broken thing must not hide the others
            yield Finding(subject, Health.BROKEN, str(error).splitlines()[0] or type(error).__name__)


def _home(connections: Connections) -> Finding:
    home = connections.settings.home
    home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        return Finding("home", Health.BROKEN, f"{home} cannot be written. Choose another with LORA_HOME")
    free = shutil.disk_usage(home).free
    text = f"{home}, {free / 1024**3:.1f} GB free"
    return Finding("home", Health.FINE if free > _FREE_BYTES else Health.NOTE, text)


def _database(connections: Connections) -> Finding:
    shown = shown_url(connections.database.url)
    return Finding("database", Health.FINE, f"{shown} at schema {head()}")


def _object_store(connections: Connections) -> Finding:
    store = connections.store
    next(iter(store.list("doctor")), None)
    return Finding("object store", Health.FINE, store.root)


def _inbox(connections: Connections) -> Finding:
    inbox = open_store(connections.settings.resolved_inbox)
    next(iter(inbox.list()), None)
    return Finding("inbox", Health.FINE, inbox.root)


def _replicate(connections: Connections) -> Finding:
    settings = connections.settings
    try:
        provider = connections.replicate
    except SettingsError as error:
        return _not_set_up(settings, REPLICATE, str(error))
    base_url, _ = settings.replicate_connection()
    owner = settings.replicate_owner or provider.owner()
    try:
        provider.input_schema(settings.trainer)
    except ProviderUnavailable:
        raise
    except ProviderError as error:
        return Finding("Replicate", Health.BROKEN, f"LORA_TRAINER {settings.trainer}: {error}")
    text = f"{base_url} as {owner} ({_paid(provider)}), trainer {settings.trainer[:60]}…"
    return Finding("Replicate", Health.FINE, text)


def _runpod(connections: Connections) -> Finding:
    settings = connections.settings
    try:
        provider = connections.runpod
    except SettingsError as error:
        return _not_set_up(settings, RUNPOD, str(error))
    base_url, endpoint, _ = settings.runpod_connection()
    return Finding("RunPod", Health.FINE, f"{base_url}, endpoint {endpoint} ({_paid(provider)})")


def _not_set_up(settings: Settings, provider: ProviderName, why: str) -> Finding:
    """Worth a repair only where models are to be trained there."""
    subject = {REPLICATE: "Replicate", RUNPOD: "RunPod"}[provider]
    if provider in settings.providers_in_use:
        return Finding(subject, Health.BROKEN, why)
    return Finding(subject, Health.FINE, "not used")


def _paid(provider: TrainingProvider) -> str:
    return "simulated, nothing is paid" if provider.simulated else "real, trainings cost money"


def _money_guard(connections: Connections) -> Finding:
    settings = connections.settings
    if settings.observe:
        return Finding("money guard", Health.NOTE, observing_says("looking on"))
    with connections.database.read() as session:
        switch = submission_switch(session)
    if switch.paused:
        text = f"submissions are paused by {switch.changed_by}: {switch.reason}. Continue: lora-pipeline trainings resume"
        return Finding("money guard", Health.NOTE, text)
    caps = f"at most {settings.daily_training_cap} trainings and ${settings.daily_cost_cap:.0f} a day"
    sensors = (
        "sensors start trainings" if connections.may_submit_by_itself() else "only people start trainings"
    )
    return Finding("money guard", Health.FINE, f"{sensors}; {caps}")


def _stack(connections: Connections) -> Finding:
    running = connections.settings.running_stack
    if running is None:
        return Finding("stack", Health.NOTE, "no stack runs on this home. Start one: lora-pipeline up")
    silent = [
        url
        for url in (f"{running.dagster_url}/server_info", f"{running.api_url}/healthz")
        if not answers(url)
    ]
    if silent:
        return Finding(
            "stack", Health.BROKEN, f"{', '.join(silent)} does not answer. Start it again: lora-pipeline up"
        )
    return Finding("stack", Health.FINE, f"Dagster {running.dagster_url}, HTTP {running.api_url}")
