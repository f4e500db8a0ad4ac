"""Following over real HTTP: what one tick asks, in what order, and what it makes of a provider in trouble."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline_tests.bench.status_tick_row import add_open_runs
from lora_pipeline_tests.fixtures.pipeline import Clock, run_row
from lora_pipeline_tests.trainings.steps import FOLLOW, GRACE, submitted_run


def _seed(database: Database, simulator: RunningSimulator, count: int) -> list[str]:
    seeded = simulator.control("trainings", count=count)["trainings"]
    add_open_runs(database, seeded)
    return [str(item["id"] if isinstance(item, dict) else item) for item in seeded]


def _states(database: Database) -> dict[str, int]:
    with database.read() as session:
        rows = [run.state for run in session.query(TrainingRun)]
    return {state: rows.count(state) for state in set(rows)}


def test_two_hundred_and_fifty_trainings_are_followed_by_three_pages(
    database: Database, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    _seed(database, simulator, 250)
    simulator.advance(7200)
    report = follow_trainings(database, provider, FOLLOW)
    assert (report.pages, report.single_reads) == (3, 0)
    assert report.log_reads == 8
    assert _states(database) == {"succeeded": 250}


def test_one_training_open_for_weeks_does_not_make_a_tick_walk_the_accounts_history(
    sqlite_database: Database, provider: ReplicateProvider, simulator: RunningSimulator, clock: Clock
) -> None:
    oldest = _seed(sqlite_database, simulator, 1)[0]
    with sqlite_database.begin() as session:
        run = session.query(TrainingRun).filter_by(training_id=oldest).one()
        run.submitted_at = run.post_started_at = clock() - timedelta(days=21)
    simulator.control("trainings", count=2_000, start=10)
    report = follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    assert report.pages <= 2
    assert report.single_reads == 1


def test_stragglers_take_turns(
    sqlite_database: Database, provider: ReplicateProvider, simulator: RunningSimulator, clock: Clock
) -> None:
    _seed(sqlite_database, simulator, 60)
    simulator.settings(list_lag_s=100_000.0)
    asked = []
    for _ in range(3):
        clock.advance(seconds=120)
        asked.append(follow_trainings(sqlite_database, provider, FOLLOW, clock=clock).single_reads)
    assert asked == [20, 20, 20]
    with sqlite_database.read() as session:
        assert session.query(TrainingRun).filter(TrainingRun.last_polled_at.is_(None)).count() == 0


def test_one_malformed_item_costs_nobody_else_their_place(
    sqlite_database: Database, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    _seed(sqlite_database, simulator, 5)
    simulator.advance(7200)
    simulator.fault("trainings.list", "malformed_item")
    report = follow_trainings(sqlite_database, provider, FOLLOW)
    assert len(report.malformed) == 1
    assert _states(sqlite_database) == {"succeeded": 5}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 502, "body": "html"}, {"status": 503}])
def test_an_outage_is_caught_up_by_the_first_tick_that_reaches_the_provider(
    sqlite_database: Database,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    fault: dict[str, object],
) -> None:
    _seed(sqlite_database, simulator, 3)
    simulator.advance(7200)
    simulator.fault("any", "answer", times=100, **fault)
    down = follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    assert not down.reached_provider
    assert _states(sqlite_database) == {"submitted": 3}
    simulator._http.delete("/simulator/faults")
    follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    assert _states(sqlite_database) == {"succeeded": 3}


def test_a_hanging_connection_and_a_huge_retry_after_do_not_hold_a_tick(
    sqlite_database: Database, simulator: RunningSimulator
) -> None:
    provider = ReplicateProvider(simulator.url, "r8_test", timeout=1.0)
    assert provider.simulated
    _seed(sqlite_database, simulator, 2)
    simulator.fault("trainings.list", "hang", times=3)
    simulator.fault("trainings.get", "answer", status=429, retry_after=86_400, times=10)
    started = time.monotonic()
    report = follow_trainings(sqlite_database, provider, FOLLOW)
    assert time.monotonic() - started < 15
    assert report.errors


def test_a_tick_stops_at_its_budget_and_the_next_goes_on(
    sqlite_database: Database, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    _seed(sqlite_database, simulator, 300)
    simulator.advance(7200)
    simulator.settings(latency_ms=200)
    rules = FollowRules(timedelta(seconds=0.3), ReconcileRules(GRACE))
    report = follow_trainings(sqlite_database, provider, rules)
    assert 1 <= report.pages < 3
    simulator.settings(latency_ms=0)
    follow_trainings(sqlite_database, provider, FOLLOW)
    assert _states(sqlite_database) == {"succeeded": 300}


def test_an_overlapping_tick_does_nothing(
    database: Database, provider: ReplicateProvider, simulator: RunningSimulator, clock: Clock
) -> None:
    _seed(database, simulator, 1)
    assert take_lease(database, "follow replicate", timedelta(minutes=1), clock())
    assert follow_trainings(database, provider, FOLLOW, clock=clock).overlapped
    clock.advance(minutes=2)
    assert not follow_trainings(database, provider, FOLLOW, clock=clock).overlapped


@pytest.mark.parametrize(("word", "state"), [("aborted", "aborted"), ("molten", "running")])
def test_a_word_that_the_client_cannot_parse_is_terminal_or_asked_again(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    word: str,
    state: str,
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"status": word})
    run = submitted_run(sqlite_database, store, provider)
    simulator.advance(300)
    follow_trainings(sqlite_database, provider, FOLLOW)
    simulator.advance(7200)
    follow_trainings(sqlite_database, provider, FOLLOW)
    assert run_row(sqlite_database, run).state == state


def test_a_404_is_lag_at_first_and_lost_after_half_an_hour_and_comes_back_to_life(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = submitted_run(sqlite_database, store, provider)
    job = run_row(sqlite_database, run).training_id
    simulator.control(f"trainings/{job}/quirks", vanishes_after_s=0.0)
    follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    assert run_row(sqlite_database, run).state == "submitted"
    clock.advance(minutes=45)
    follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    lost = run_row(sqlite_database, run)
    assert lost.state == "lost"
    assert "trainings resolve" in str(lost.hold_reason)
    simulator.control(f"trainings/{job}/quirks", vanishes_after_s=1e9)
    simulator.advance(7200)
    follow_trainings(sqlite_database, provider, FOLLOW, clock=clock)
    assert run_row(sqlite_database, run).state == "succeeded"


def test_logs_at_a_hundred_percent_of_a_failed_training_end_nothing_but_the_status_does(
    sqlite_database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    simulator.fault(
        "trainings.create",
        "quirk",
        quirk={"error": "Failed to create trained image after successful training run."},
    )
    run = submitted_run(sqlite_database, store, provider)
    simulator.advance(7200)
    follow_trainings(sqlite_database, provider, FOLLOW)
    row = run_row(sqlite_database, run)
    assert row.state == "failed"
    assert "Failed to create trained image" in str(row.error)
