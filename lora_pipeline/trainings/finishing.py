"""The end of trainings as batches: one tick that follows, one run that finalises everything that succeeded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.providers.protocol import ProviderUnavailable
from lora_pipeline.settings import PROVIDERS, REPLICATE, ProviderName, SettingsError
from lora_pipeline.trainings.batches import BatchReport, Failure, batch_lease
from lora_pipeline.trainings.datasets import delete_ended_datasets
from lora_pipeline.trainings.finalisation import (
    Finalisation,
    FinalisationResult,
    FinalisationRules,
    finalisable,
    finalise_training,
)
from lora_pipeline.trainings.following import FollowReport, FollowRules, follow_trainings
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.lifecycle import OPEN
from lora_pipeline.trainings.outbox import AssetEvent, owe
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.tending import ask_for_cancels, handle_waiting_hints
from lora_pipeline.versions.activation import Activated
from lora_pipeline.versions.overview import registry_facts

log = logging.getLogger(__name__)

LEASE = "finalise trainings"
# Downloads of about 170 MB each: more at once gain little on one disk and cost memory in the store's client.
_THREADS = 4
_ROUND = 100


@dataclass(frozen=True)
class WorkToFinish:
    """What a tick of the status sensor found: the lease for a batch, or why there is none."""

    lease: str | None
    explanation: str
    followed: FollowReport


def follow_and_find_work(connections: Connections, provider_name: ProviderName = REPLICATE) -> WorkToFinish:
    """Follow every open training of one provider once, then say whether a finalising batch is due.

    Raises ProviderUnavailable where there was something to ask and no request got an answer, so that the
    tick is seen to fail, and SettingsError where trainings are open at a provider that is not set up.
    """
    settings = connections.settings
    try:
        provider = connections.provider_named(provider_name)
    except SettingsError as error:
        if _any_open(connections, provider_name):
            raise
        used = provider_name in settings.providers_in_use
        return WorkToFinish(
            None, str(error) if used else f"nothing is trained at {provider_name}", FollowReport()
        )
    log.info(
        "Training Completion Monitor started - will check for stuck trainings every %s seconds",
        round(settings.poll_interval.total_seconds()),
    )
    started = connections.now()
    ask_for_cancels(connections, provider, started)
    rules = FollowRules(
        settings.tick_budget - (connections.now() - started),
        ReconcileRules(settings.reconcile_grace, settings.auto_resubmit_after),
    )
    report = follow_trainings(connections.database, provider, rules, clock=connections.now)
    if not report.errors:
        handle_waiting_hints(connections, provider, started)
    now = connections.now()
    if not finalisable(connections.database, now, 1):
        if not report.reached_provider:
            raise ProviderUnavailable("; ".join(report.errors))
        return WorkToFinish(None, _explain(report), report)
    lease = take_lease(connections.database, LEASE, settings.lease, now)
    return WorkToFinish(lease, "a finalising batch is at work already", report)


def finalise_succeeded(
    connections: Connections, *, lease: str | None, say: Callable[[str], object]
) -> BatchReport:
    """Finalise everything that has succeeded, until nothing is left or the lease is lost."""
    done: list[str] = []
    failures: list[Failure] = []
    tried: set[int] = set()
    with batch_lease(connections, LEASE, lease) as held:
        while held.renew():
            found = finalisable(connections.database, connections.now(), _ROUND)
            due = {run_id: provider for run_id, provider in found.items() if run_id not in tried}
            if not due:
                break
            tried.update(due)
            for result in _finalise_all(connections, due):
                say(_line(result))
                if result.outcome is Finalisation.FINALISED:
                    done.append(result.model_key)
                elif result.outcome in (Finalisation.HELD, Finalisation.RETRY):
                    failures.append(Failure(result.model_key, result.reason or ""))
                held.renew()
        _delete_ended_datasets(connections)
        if done:
            _owe_registry(connections, max(tried))
    return BatchReport(tuple(done), tuple(failures), "finalised")


def finalisation_rules(connections: Connections) -> FinalisationRules:
    """What the settings say about finalising."""
    return FinalisationRules(connections.settings.weights_cap_bytes, connections.settings.lease)


def _finalise_all(connections: Connections, due: Mapping[int, str]) -> Iterator[FinalisationResult]:
    """Results as they come, so that the caller can renew its lease between them."""
    rules = finalisation_rules(connections)
    providers = {name: connections.provider_named(name) for name in set(due.values())}

    def one(run: tuple[int, str]) -> FinalisationResult:
        run_id, name = run
        database, store = connections.database, connections.store
        return finalise_training(database, store, providers[name], run_id, rules, clock=connections.now)

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(one, due.items())


def _delete_ended_datasets(connections: Connections) -> None:
    for name in PROVIDERS:
        # One that is not set up cannot be asked to delete what was handed to it, and its own copy expires.
        with suppress(SettingsError):
            provider = connections.provider_named(name)
            delete_ended_datasets(connections.database, connections.store, provider, connections.now())


def _any_open(connections: Connections, provider_name: str) -> bool:
    with connections.database.read() as session:
        is_open = exists().where(TrainingRun.provider == provider_name, TrainingRun.state.in_(OPEN))
        return bool(session.scalar(select(is_open)))


def _owe_registry(connections: Connections, last_run: int) -> None:
    now: datetime = connections.now()
    event = AssetEvent(
        event_id=f"registry:{last_run}:{now:%Y%m%d%H%M%S%f}",
        asset_key="version_registry",
        partition=None,
        kind="materialisation",
        facts=registry_facts(connections.database),
    )
    with connections.database.begin() as session:
        owe(session, [event], now)


def _line(result: FinalisationResult) -> str:
    if result.outcome is Finalisation.FINALISED:
        return f"{result.model_key}: V{result.version} verified, {_served(result.activated)}"
    return f"{result.model_key}: {result.outcome.value}: {result.reason or ''}"


def _served(activated: Activated | None) -> str:
    if activated is not None and activated.withheld:
        return "not served: its cancel had been asked for"
    return "kept, another is pinned" if activated is None or activated.kept_pinned else "served"


def _explain(report: FollowReport) -> str:
    if report.overlapped:
        return "another tick is at work"
    if not report.open and not report.unknown:
        return "No in-progress trainings found"
    words = (
        f"{report.open} in progress, {report.pages} pages and {report.single_reads + report.log_reads} reads"
    )
    return f"{words}; {'; '.join(report.errors)}" if report.errors else words
