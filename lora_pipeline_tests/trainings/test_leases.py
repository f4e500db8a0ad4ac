"""Named leases: one at a time, until its time is over, and nobody ends another's."""

from __future__ import annotations

from datetime import timedelta

from lora_pipeline.database.sessions import Database
from lora_pipeline.trainings.leases import give_lease_back, leased, renew_lease, take_lease
from lora_pipeline_tests.fixtures.pipeline import Clock

LIFE = timedelta(minutes=5)


def test_a_lease_is_one_ones_until_its_time_is_over(database: Database, clock: Clock) -> None:
    assert take_lease(database, "work", LIFE, clock())
    assert take_lease(database, "other work", LIFE, clock())
    clock.advance(minutes=4)
    assert take_lease(database, "work", LIFE, clock()) is None
    clock.advance(minutes=1)
    assert take_lease(database, "work", LIFE, clock())


def test_who_renews_keeps_it(database: Database, clock: Clock) -> None:
    token = take_lease(database, "work", LIFE, clock())
    assert token is not None
    for _ in range(2):
        clock.advance(minutes=4)
        assert renew_lease(database, "work", token, LIFE, clock())
    assert take_lease(database, "work", LIFE, clock()) is None


def test_who_came_too_late_neither_renews_nor_ends_what_another_has(database: Database, clock: Clock) -> None:
    late = take_lease(database, "work", LIFE, clock())
    assert late is not None
    clock.advance(minutes=5)
    token = take_lease(database, "work", LIFE, clock())
    assert token is not None
    assert not renew_lease(database, "work", late, LIFE, clock())
    give_lease_back(database, "work", late, clock())
    assert take_lease(database, "work", LIFE, clock()) is None
    give_lease_back(database, "work", token, clock())
    assert take_lease(database, "work", LIFE, clock())


def test_a_block_has_it_for_its_length(database: Database, clock: Clock) -> None:
    with leased(database, "work", LIFE, clock) as token:
        assert token
        with leased(database, "work", LIFE, clock) as other:
            assert other is None
        assert take_lease(database, "work", LIFE, clock()) is None, "who had none gave none back"
    assert take_lease(database, "work", LIFE, clock())
