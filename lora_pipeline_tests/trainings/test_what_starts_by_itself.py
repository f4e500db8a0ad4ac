"""Which sets and which runs a batch may open and send: what nobody asked for is paid for only with permission."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ImageSet
from lora_pipeline.objects import ObjectStore
from lora_pipeline.trainings.intents import untrained_sets
from lora_pipeline.trainings.submission import ASKED_BY_HAND, ASKED_BY_SENSOR, submittable
from lora_pipeline_tests.fixtures.pipeline import Clock, add_model, add_packed_run, run_row
from lora_pipeline_tests.trainings.steps import set_run

KEY = "user-50c"


def add_ready_set(database: Database, model_id: int, clock: Clock, **fields: Any) -> int:
    values = {"usable_count": 10, "findings": [], "digest": "new"} | fields
    with database.begin() as session:
        found = ImageSet(model_id=model_id, state="ready", created_at=clock(), updated_at=clock(), **values)
        session.add(found)
        session.flush()
        return found.id


def untrained(database: Database) -> tuple[list[str], list[str]]:
    """(With permission to spend, without)."""
    return untrained_sets(database, by_itself=True), untrained_sets(database, by_itself=False)


def test_a_set_that_nobody_asked_for_is_opened_with_permission_alone(
    database: Database, clock: Clock
) -> None:
    model_id = add_model(database)
    add_ready_set(database, model_id, clock)
    assert untrained(database) == ([KEY], [])
    add_ready_set(database, model_id, clock, asked_for_at=clock())
    assert untrained(database) == ([KEY], [KEY])


@pytest.mark.parametrize("state", ["packed", "running", "finalised"])
def test_a_set_that_was_opened_is_not_opened_again(
    database: Database, store: ObjectStore, clock: Clock, state: str
) -> None:
    run = run_row(database, add_packed_run(database, store, state=state))
    with database.begin() as session:
        session.get_one(ImageSet, run.image_set_id).asked_for_at = clock()
    assert untrained(database) == ([], [])


def test_a_model_that_is_being_trained_waits(database: Database, store: ObjectStore, clock: Clock) -> None:
    run = run_row(database, add_packed_run(database, store, state="running"))
    add_ready_set(database, run.model_id, clock, asked_for_at=clock())
    assert untrained(database) == ([], [])
    set_run(database, run.id, state="finalised")
    assert untrained(database) == ([KEY], [KEY])


def test_content_that_was_trained_on_is_trained_again_only_where_somebody_asks(
    database: Database, store: ObjectStore, clock: Clock
) -> None:
    run = run_row(database, add_packed_run(database, store, state="finalised"))
    with database.begin() as session:
        session.get_one(ImageSet, run.image_set_id).digest = "same"
    again = add_ready_set(database, run.model_id, clock, digest="same")
    assert untrained(database) == ([], [])
    with database.begin() as session:
        session.get_one(ImageSet, again).asked_for_at = clock()
    assert untrained(database) == ([KEY], [KEY])


@pytest.mark.parametrize(
    ("asked_by", "with_permission", "without"),
    [("cli:ada", True, True), (ASKED_BY_SENSOR, True, False), (ASKED_BY_HAND, False, False)],
)
@pytest.mark.parametrize("state", ["ready", "packed"])
def test_what_is_sent_depends_on_who_asked(
    database: Database,
    store: ObjectStore,
    clock: Clock,
    asked_by: str,
    with_permission: bool,
    without: bool,
    state: str,
) -> None:
    add_packed_run(database, store, asked_by=asked_by, state=state)
    assert submittable(database, clock(), by_itself=True) == [KEY] * with_permission
    assert submittable(database, clock(), by_itself=False) == [KEY] * without


@pytest.mark.parametrize("field", ["not_before", "lease_until"])
def test_what_waits_or_is_being_sent_is_left_alone(
    database: Database, store: ObjectStore, clock: Clock, field: str
) -> None:
    add_packed_run(database, store, asked_by="cli:ada", **{field: clock() + timedelta(minutes=1)})
    assert submittable(database, clock(), by_itself=True) == []
    clock.advance(minutes=1)
    assert submittable(database, clock(), by_itself=True) == [KEY]
