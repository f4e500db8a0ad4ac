"""No asset event is lost, whatever happens to a tick: Dagster stores events first and the cursor last.

A model of Dagster's daemon around the real outbox: each tick is an evaluation (acknowledge the cursor, claim a batch)
and then the daemon's own work (store each event, store the cursor). All sequences of what can happen to four ticks
are run, with a change of state between them. An event may come twice, never not at all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.trainings.outbox import AssetEvent, ClaimedBatch, acknowledge, claim, owe, owed
from lora_pipeline_tests.proofs.schedules import memory_of
from lora_pipeline_tests.proofs.steps import SteppedDatabase

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BATCH = 2

WELL = "goes well"
KILLED_AFTER_ACKNOWLEDGING = "killed after acknowledging"
CUT = "cut by its timeout after claiming"
NO_EVENT = "daemon killed before the first event"
ONE_EVENT = "daemon killed after one event"
NO_CURSOR = "daemon killed between events and cursor"
OVERTAKEN = "cut by its timeout, and it claims while the next tick is at work"
FATES = (WELL, KILLED_AFTER_ACKNOWLEDGING, CUT, NO_EVENT, ONE_EVENT, NO_CURSOR, OVERTAKEN)


@dataclass
class Daemon:
    """Dagster's side: what it has stored."""

    database: Database
    stored: list[str] = field(default_factory=list)
    cursor: str | None = None
    zombie: bool = False
    """An evaluation that was cut and still runs: it claims in the middle of the next tick."""

    def tick(self, fate: str) -> None:
        acknowledge(self.database, self.cursor, NOW)
        if fate == KILLED_AFTER_ACKNOWLEDGING:
            return
        if fate == OVERTAKEN:
            self.zombie = True
            return
        batch = claim(self.database, BATCH)
        if self.zombie:
            claim(self.database, BATCH)
            self.zombie = False
        if fate == CUT or batch is None:
            return
        self._store(batch, fate)

    def _store(self, batch: ClaimedBatch, fate: str) -> None:
        events = [event.event_id for event in batch.events]
        self.stored += {NO_EVENT: [], ONE_EVENT: events[:1]}.get(fate, events)
        if fate == WELL:
            self.cursor = batch.token


def change(database: Database, number: int) -> str:
    event = AssetEvent(
        f"training:{number}:submitted", "replicate_training", f"user-{number}", "materialisation", {}
    )
    with database.begin() as session:
        owe(session, [event], NOW + timedelta(seconds=number))
    return event.event_id


def run(database: Database, fates: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The events that were owed and those that Dagster stored, once ticks go well again."""
    daemon = Daemon(database)
    events = [change(database, number) for number in range(BATCH)]
    for number, fate in enumerate(fates):
        daemon.tick(fate)
        events.append(change(database, BATCH + number))
    for _ in range(len(events) + 2):
        daemon.tick(WELL)
    assert owed(database) == 0, fates
    return events, daemon.stored


def test_no_sequence_of_cut_ticks_and_killed_daemons_loses_an_event(
    proof_database: tuple[SteppedDatabase, bytes],
) -> None:
    database, empty = proof_database
    sequences = list(itertools.product(FATES, repeat=3))
    for fates in sequences:
        memory_of(database).deserialize(empty)
        database.steps.start_over()
        events, stored = run(database, fates)
        assert set(stored) == set(events), fates
        if set(fates) <= {WELL, KILLED_AFTER_ACKNOWLEDGING}:
            assert stored == events, f"each exactly once, in order: {fates}"
    print(f"{len(sequences)} sequences")


@pytest.mark.deep
def test_no_longer_sequence_loses_an_event(proof_database: tuple[SteppedDatabase, bytes]) -> None:
    database, empty = proof_database
    for fates in itertools.product(FATES, repeat=4):
        memory_of(database).deserialize(empty)
        database.steps.start_over()
        events, stored = run(database, fates)
        assert set(stored) == set(events), fates


@pytest.mark.parametrize(
    "fates",
    [
        (NO_CURSOR, CUT, ONE_EVENT, OVERTAKEN, WELL),
        (OVERTAKEN, WELL, NO_CURSOR, KILLED_AFTER_ACKNOWLEDGING),
        (ONE_EVENT, OVERTAKEN, NO_EVENT, OVERTAKEN, NO_CURSOR),
    ],
)
def test_sampled_sequences_lose_no_event_on_both_databases(
    fates: tuple[str, ...], database: Database
) -> None:
    events, stored = run(database, fates)
    assert set(stored) == set(events)
