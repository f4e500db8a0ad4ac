"""Bulk sync: every user's active model held against the provider, and repaired where that is wanted.

List first: ten thousand models take about a hundred requests. One bulk sync works at a time, under a lease; a
model's update is whole or not at all, so a run that was killed is simply run again. One model's trouble is its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lora_pipeline.connections import Connections
from lora_pipeline.trainings.batches import BatchLease, batch_lease
from lora_pipeline.versions.asking import Seen
from lora_pipeline.versions.deep_progress import begin_deep, end_deep
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.normalisation import Normalisation, normalise_versions
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.provider_survey import Survey, SurveyRules, survey_in_steps
from lora_pipeline.versions.registered_versions import registered_among
from lora_pipeline.versions.registry_event import owe_registry
from lora_pipeline.versions.settling import Settling, SyncResult, settle
from lora_pipeline.versions.sightings import remember
from lora_pipeline.versions.sync_decisions import SyncOutcome
from lora_pipeline.versions.sync_targets import SyncTarget, active_targets, is_chosen, known_trainers

LEASE = "bulk sync"
WAIT_S = 300.0
"""How long a bulk sync waits for a throttling provider in all."""
_TOLD = 100
"""Models named one by one while it works; the report has all of them."""


class AnotherAtWork(Exception):
    """Another bulk sync holds the lease; nothing was done. It gives way by itself, even where it was killed."""


@dataclass(frozen=True)
class BulkOptions:
    """What a bulk sync is asked to do."""

    apply: bool = False
    """False plans only: nothing is changed."""
    deep: bool = False
    """Ask for every model by itself: surest, and counts versions; a request each."""
    only: str = "*"
    """Pattern (`user-*`) over model keys and user ids."""
    include_tests: bool = False


@dataclass(frozen=True)
class BulkReport:
    """What a bulk sync found and did."""

    options: BulkOptions
    simulated: bool | None
    models: int
    outcomes: dict[str, int]
    verdicts: dict[str, int]
    """As it is now."""
    results: tuple[SyncResult, ...] = field(repr=False)
    """Every model that was not simply up to date."""
    requests: int
    pages: int
    seconds: float
    normalisation: Normalisation
    ended_early: str | None = None
    """Why not every model was settled; those that are not in `results` are as they were."""

    @property
    def failures(self) -> tuple[SyncResult, ...]:
        """Models whose sync did not come to its end."""
        ended = (SyncOutcome.FAILED, SyncOutcome.CHANGED)
        return tuple(result for result in self.results if result.outcome in ended)

    @property
    def needing_sync(self) -> int:
        """Models that still need a sync: all drift where only planned, what was left alone otherwise."""
        return sum(self.verdicts.get(verdict, 0) for verdict in _NEEDS_SYNC)

    @property
    def summary(self) -> str:
        """One line for a log."""
        words = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{self.models} models: {words or 'none'}; {self.requests} requests in {self.seconds:.1f} s"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, nothing personal."""
        return {
            "applied": self.options.apply,
            "deep": self.options.deep,
            "filter": self.options.only,
            "simulated": self.simulated,
            "models": self.models,
            "outcomes": self.outcomes,
            "verdicts": self.verdicts,
            "requests": self.requests,
            "seconds": round(self.seconds, 2),
            "endedEarly": self.ended_early,
            "formats": self.normalisation.as_json(),
            "results": [result.as_json() for result in self.results],
        }


_NEEDS_SYNC = (
    Verdict.BEHIND,
    Verdict.MISSING_VERSION,
    Verdict.MALFORMED_VERSION,
    Verdict.TRAINER_VERSION,
)


def bulk_sync(
    connections: Connections,
    options: BulkOptions,
    *,
    actor: str,
    say: Callable[[str], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> BulkReport:
    """Plan or carry out a sync of every user's active model. Raises AnotherAtWork where one is under way already.

    Raises nothing of the provider's: a model that could not be asked for says so in its result and is unchanged.
    """
    patience = Patience(WAIT_S, sleep)
    if connections.database.observing:
        options = replace(options, apply=False)
    if not options.apply:
        return _bulk_sync(connections, options, None, actor, say, patience)
    with batch_lease(connections, LEASE, None) as lease:
        if not lease.renew():
            minutes = connections.settings.lease.total_seconds() / 60
            raise AnotherAtWork(
                "another bulk sync is at work, or was killed a moment ago; nothing was done. Try again when it has "
                f"ended; a killed one gives way within {minutes:.0f} minutes"
            )
        return _bulk_sync(connections, options, _Renewal(connections, lease), actor, say, patience)


class _Renewal:
    """Renews the lease when a part of its time has passed, and says whether to go on."""

    def __init__(self, connections: Connections, lease: BatchLease) -> None:
        self._connections = connections
        self._lease = lease
        self._due = connections.now() + connections.settings.lease / 5
        self.lost = False

    def __call__(self) -> bool:
        now = self._connections.now()
        if not self.lost and now >= self._due:
            self.lost = not self._lease.renew()
            self._due = now + self._connections.settings.lease / 5
        return not self.lost


def _bulk_sync(
    connections: Connections,
    options: BulkOptions,
    renewal: _Renewal | None,
    actor: str,
    say: Callable[[str], object],
    patience: Patience,
) -> BulkReport:
    started = time.monotonic()
    go_on: Callable[[], bool] = renewal or (lambda: True)
    formats = normalise_versions(connections, apply=options.apply, only=options.only, actor=actor)
    with connections.database.read() as session:
        trainers = known_trainers(session, connections.settings.trainer)
        targets = active_targets(session, trainers, include_tests=options.include_tests)
    targets = [one for one in targets if is_chosen(options.only, one.model_key, one.user_id)]
    say(f"{len(targets)} models to look at{'' if options.apply else ' (planning only)'}")
    outcomes: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    results: list[SyncResult] = []
    found, steps = _look(connections, targets, options, go_on, say, patience)
    settling = Settling(actor, options.apply, go_on)
    for step in steps:
        for result in settle(connections, step, found, settling):
            outcomes[result.outcome.value] += 1
            verdicts[result.verdict.value] += 1
            if result.outcome is not SyncOutcome.UP_TO_DATE:
                results.append(result)
                _tell(result, len(results), say)
    if outcomes[SyncOutcome.UPDATED]:
        owe_registry(connections, "bulk")
    lost = renewal is not None and renewal.lost
    if options.deep and not lost:
        end_deep(connections)
    return BulkReport(
        options=options,
        simulated=_simulated(connections, found),
        models=len(targets),
        outcomes=dict(outcomes),
        verdicts=dict(verdicts),
        results=tuple(sorted(results, key=lambda result: result.model_key)),
        requests=found.requests,
        pages=found.index.pages,
        seconds=time.monotonic() - started,
        normalisation=formats,
        ended_early="the lease was lost to another bulk sync" if lost else None,
    )


def _look(
    connections: Connections,
    targets: Sequence[SyncTarget],
    options: BulkOptions,
    go_on: Callable[[], bool],
    say: Callable[[str], object],
    patience: Patience,
) -> tuple[Survey, Iterator[list[SyncTarget]]]:
    by_id = {target.model_id: target for target in targets}

    def keep(seen: dict[int, Seen]) -> None:
        remember(connections.database, by_id, seen)

    rules = SurveyRules(
        deep=options.deep,
        registered=lambda versions: registered_among(connections.database, versions),
        counted_since=begin_deep(connections, options.only) if options.deep else None,
        go_on=go_on,
        say=say,
        on_seen=keep,
    )
    return survey_in_steps(connections.replicate, targets, rules, patience, connections.now)


def _tell(result: SyncResult, number: int, say: Callable[[str], object]) -> None:
    """Name the first models one by one, then only say how many there were."""
    if number > _TOLD:
        if number % 1_000 == 0:
            say(f"{number} models were not simply up to date so far")
        return
    updated = result.outcome is SyncOutcome.UPDATED
    change = f" {result.previous or 'nothing'} → {result.current}" if updated else ""
    say(f"{result.model_key}: {result.outcome.value}{change}: {result.detail}")


def _simulated(connections: Connections, found: Survey) -> bool | None:
    """Whether a simulator answered; not asked for where nothing else was asked."""
    return connections.replicate.simulated if found.requests and found.index.error is None else None
