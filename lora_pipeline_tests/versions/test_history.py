from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import UserModel
from lora_pipeline.versions.history import (
    Period,
    Served,
    TimeNotUnderstood,
    history_of,
    live_in,
    parse_period,
    what_was_live,
)
from lora_pipeline.versions.pinning import (
    ChoiceRefused,
    Chooser,
    activate_version,
    pin_model,
    roll_back,
    unpin_model,
)
from lora_pipeline_tests.versions.registered import add_version

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return parse_period(text).start


def interval(version: int, began: str, ended: str | None) -> Served:
    return Served(version, None, at(began), at(ended) if ended else None, "t", "t", False, False)


HISTORY = [
    interval(3, "2026-03-02T09:00", None),
    interval(2, "2026-03-02T09:00", "2026-03-02T09:00"),
    interval(1, "2026-03-01T12:00", "2026-03-02T09:00"),
]


@pytest.mark.parametrize(
    ("when", "live"),
    [
        ("2026-03-01T11:59:59", []),
        ("2026-03-01T12:00", [1]),
        ("2026-03-02T08:59:59.999999", [1]),
        ("2026-03-02T09:00", [3]),
        ("2026-03-02T10:00+02:00", [1]),
        ("2026-02-28", []),
        ("2026-03-01", [1]),
        ("2026-03-02", [3, 1]),
        ("2026-03-03", [3]),
    ],
)
def test_what_was_live_then(when: str, live: list[int]) -> None:
    assert [served.version for served in live_in(HISTORY, parse_period(when))] == live


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "03/01/2026"])
def test_a_time_that_cannot_be_read_is_refused_with_examples(text: str) -> None:
    with pytest.raises(TimeNotUnderstood, match="2026-03-01T12:30"):
        parse_period(text)


def test_the_future_was_not_live_yet(sqlite_database: Database) -> None:
    add_version(sqlite_database, now=START)
    with sqlite_database.read() as session, pytest.raises(TimeNotUnderstood, match="still to come"):
        what_was_live(session, 1, "2026-03-02", START)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["train", "activate first", "activate newest", "pin", "unpin", "rollback"]),
        # Clocks of several machines: a later choice may carry an earlier time.
        st.integers(-5, 60),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, probes=st.lists(st.integers(0, 1200), min_size=1, max_size=8))
def test_whatever_is_chosen_every_moment_after_the_first_has_exactly_one_version(
    sqlite_database: Database, steps: list[tuple[str, int]], probes: list[int]
) -> None:
    with sqlite_database.read() as session:
        key = f"user-{session.query(UserModel).count()}"
    now = START
    add_version(sqlite_database, key, 1, now=now)
    trained = 1
    for what, minutes in steps:
        now += timedelta(minutes=minutes)
        if what == "train":
            trained += 1
            add_version(sqlite_database, key, trained, now=now)
        else:
            choose(sqlite_database, key, what, Chooser("t", "t", now), newest=trained)
    with sqlite_database.read() as session:
        model = session.query(UserModel).filter_by(model_key=key).one()
        history = history_of(session, model.id)
    assert [served.active_to for served in history].count(None) == 1
    assert model.replicate_version_id == history[0].provider_version
    for minutes in probes:
        assert len(live_in(history, Period(START + timedelta(minutes=minutes)))) == 1
    assert live_in(history, Period(START - timedelta(microseconds=1))) == []
    whole = live_in(history, Period(START, START + timedelta(days=30)))
    assert {served.version for served in whole} == {
        s.version for s in history if s.active_to != s.active_from
    }


def choose(database: Database, key: str, what: str, by: Chooser, *, newest: int) -> None:
    match what:
        case "activate first":
            activate_version(database, key, "V1", by)
        case "activate newest":
            activate_version(database, key, str(newest), by)
        case "pin":
            pin_model(database, key, by)
        case "unpin":
            unpin_model(database, key, by)
        case "rollback":
            with contextlib.suppress(ChoiceRefused):
                roll_back(database, key, by)
