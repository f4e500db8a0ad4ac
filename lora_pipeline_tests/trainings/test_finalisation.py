"""Finalisation: weights that are not what they should be are refused with the reason, and retried or held."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.protocol import Refused
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finalisation import (
    MAX_ATTEMPTS,
    Finalisation,
    FinalisationRules,
    finalisable,
    finalise_training,
)
from lora_pipeline.trainings.following import follow_trainings
from lora_pipeline_tests.fixtures.pipeline import Clock, model_row, run_row
from lora_pipeline_tests.trainings.steps import FINALISE, FOLLOW, submitted_run


def _succeeded(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    **quirk: object,
) -> int:
    if quirk:
        simulator.fault("trainings.create", "quirk", quirk=quirk)
    run = submitted_run(database, store, provider)
    simulator.advance(7200)
    follow_trainings(database, provider, FOLLOW)
    assert run_row(database, run).state == "succeeded"
    return run


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("two_members", "more than one|two"),
        ("dotdot", r"\.\."),
        ("no_member", "no .*safetensors|without"),
        ("not_finite", "NaN|infinite|finite"),
        ("header_too_long", "header"),
    ],
)
def test_weights_that_are_wrong_in_themselves_are_held_with_the_reason(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    damage: str,
    words: str,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator, weights=damage)
    result = finalise_training(sqlite_database, store, provider, run, FINALISE)
    assert result.outcome is Finalisation.HELD, result
    row = run_row(sqlite_database, run)
    assert row.state == "held"
    assert re.search(words, str(row.hold_reason)), row.hold_reason
    assert "trainings resolve" in str(row.hold_reason)
    assert model_row(sqlite_database).replicate_version_id is None
    with sqlite_database.read() as session:
        assert session.query(ModelVersion).count() == 0
    assert not list(store.list("loras"))


@pytest.mark.parametrize("damage", ["truncated", "html", "missing"])
def test_weights_that_may_arrive_whole_next_time_are_retried_and_then_held(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    damage: str,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator, weights=damage)
    outcomes = []
    for _ in range(MAX_ATTEMPTS):
        clock.advance(minutes=10)
        assert list(finalisable(sqlite_database, clock(), 10)) == [run]
        outcomes.append(
            finalise_training(sqlite_database, store, provider, run, FINALISE, clock=clock).outcome
        )
    assert outcomes == [Finalisation.RETRY] * (MAX_ATTEMPTS - 1) + [Finalisation.HELD]


def test_an_outage_of_the_download_uses_up_no_attempt(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator)
    simulator.fault("weights.download", "answer", status=503, times=100)
    for _ in range(MAX_ATTEMPTS + 3):
        clock.advance(minutes=10)
        result = finalise_training(sqlite_database, store, provider, run, FINALISE, clock=clock)
        assert result.outcome is Finalisation.RETRY, result
    assert run_row(sqlite_database, run).finalise_attempts == 0
    simulator._http.delete("/simulator/faults")
    clock.advance(minutes=10)
    done = finalise_training(sqlite_database, store, provider, run, FINALISE, clock=clock)
    assert done.outcome is Finalisation.FINALISED


class Interrupted(ReplicateProvider):
    """While it downloads, `meanwhile` happens."""

    meanwhile: Callable[[], object] | None = None

    def download(self, url: str) -> Iterator[bytes]:
        if self.meanwhile is not None:
            self.meanwhile()
        yield from super().download(url)


@pytest.fixture
def interrupted(simulator: RunningSimulator) -> Interrupted:
    return Interrupted(simulator.url, "r8_test", timeout=5.0)


def test_what_one_finalises_no_other_takes(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    interrupted: Interrupted,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = _succeeded(database, store, provider, simulator)
    others: list[Finalisation] = []
    interrupted.meanwhile = lambda: others.append(
        finalise_training(database, store, provider, run, FINALISE, clock=clock).outcome
    )
    result = finalise_training(database, store, interrupted, run, FINALISE, clock=clock)
    assert (result.outcome, others) == (Finalisation.FINALISED, [Finalisation.TAKEN])


@pytest.mark.parametrize("error", [None, Refused("it is gone")])
def test_who_was_overtaken_while_downloading_changes_nothing_any_more(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    interrupted: Interrupted,
    simulator: RunningSimulator,
    clock: Clock,
    error: Exception | None,
) -> None:
    """A version that somebody rolled back since must not be served again, nor a finished run be held."""
    run = _succeeded(database, store, provider, simulator)

    def overtake() -> None:
        clock.moment += FINALISE.lease
        other = finalise_training(database, store, provider, run, FINALISE, clock=clock)
        assert other.outcome is Finalisation.FINALISED
        if error is not None:
            raise error

    interrupted.meanwhile = overtake
    result = finalise_training(database, store, interrupted, run, FINALISE, clock=clock)
    assert result.outcome is Finalisation.TAKEN
    row = run_row(database, run)
    assert (row.state, row.error) == ("finalised", None)


def test_weights_over_the_cap_are_not_taken(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator)
    tiny = FinalisationRules(cap_bytes=1_000, lease=FINALISE.lease)
    result = finalise_training(sqlite_database, store, provider, run, tiny, clock=clock)
    assert result.outcome is Finalisation.HELD
    assert "1,000" in str(result.reason) or "1000" in str(result.reason)


@pytest.mark.parametrize("output", ["none", "null_version", "no_weights"])
def test_a_success_that_names_no_version_or_weights_is_asked_again_and_never_registered(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    output: str,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator, output=output)
    result = finalise_training(sqlite_database, store, provider, run, FINALISE)
    assert result.outcome is Finalisation.INCOMPLETE
    job = run_row(sqlite_database, run).training_id
    simulator.control(f"trainings/{job}/quirks")
    report = follow_trainings(sqlite_database, provider, FOLLOW)
    assert report.open == 1, "it is still followed"
    with sqlite_database.read() as session:
        assert session.query(ModelVersion).count() == 0


@pytest.mark.parametrize("output", ["bare_hash", "model_hash"])
def test_a_version_spelled_short_is_completed_by_its_destination(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    output: str,
) -> None:
    run = _succeeded(sqlite_database, store, provider, simulator, output=output)
    result = finalise_training(sqlite_database, store, provider, run, FINALISE)
    assert result.outcome is Finalisation.FINALISED, result
    served = str(model_row(sqlite_database).replicate_version_id)
    assert served.startswith("acme/user-50c-selfie-lora:")
    assert len(served.rpartition(":")[2]) == 64


def test_a_copy_that_reads_back_differently_is_removed_and_written_again(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = _succeeded(database, store, provider, simulator)
    first = finalise_training(database, store, provider, run, FINALISE, clock=clock)
    assert first.outcome is Finalisation.FINALISED
    key = next(iter(store.list("loras"))).key
    with database.begin() as session:
        row = session.get_one(type(run_row(database, run)), run)
        row.state = "succeeded"
    store.put_bytes(key, b"other bytes")
    clock.advance(minutes=10)
    again = finalise_training(database, store, provider, run, FINALISE, clock=clock)
    assert again.outcome is Finalisation.RETRY
    clock.advance(minutes=10)
    healed = finalise_training(database, store, provider, run, FINALISE, clock=clock)
    assert healed.outcome is Finalisation.FINALISED
    with database.read() as session:
        assert session.query(ModelVersion).count() == 1
