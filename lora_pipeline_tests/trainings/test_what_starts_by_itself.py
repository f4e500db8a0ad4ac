"""Which sets and which runs a batch may open and send: what nobody asked for is paid for only with permission."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ImageSet
from lora_pipeline.objects import ObjectStore
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.intents import untrained_sets
from lora_pipeline.trainings.submission import ASKED_BY_HAND, ASKED_BY_SENSOR, submittable
from lora_pipeline_tests.fixtures.pipeline import Clock, add_model, add_packed_run, run_row
from lora_pipeline_tests.fixtures.s3 import start_s3_server
from lora_pipeline_tests.providers.scripted import ScriptedServer, json_reply
from lora_pipeline_tests.trainings.steps import set_run

KEY = "user-50c"


@pytest.fixture
def billing() -> Iterator[ScriptedServer]:
    """A provider that does not say that it is simulated, whatever it is asked."""
    with ScriptedServer(lambda _: json_reply({"username": "acme"})) as server:
        yield server


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"replicate_base_url": "simulator"}, True),
        ({"replicate_base_url": "billing"}, False),
        ({"replicate_base_url": "billing", "auto_submit": True}, True),
        ({"replicate_base_url": "simulator", "style_provider": "runpod"}, False),
        ({"replicate_base_url": "simulator", "style_provider": "runpod", "auto_submit": True}, True),
    ],
)
def test_sensors_spend_nothing_without_permission(
    settings: dict[str, Any],
    allowed: bool,
    simulator: RunningSimulator,
    billing: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One provider that bills among those in use is enough."""
    for name, value in start_s3_server().env.items():
        monkeypatch.setenv(name, value)
    urls = {"simulator": simulator.url, "billing": billing.url}
    base = {"replicate_base_url": urls[settings["replicate_base_url"]], "runpod_base_url": billing.url}
    secrets = {"replicate_api_token": "r8_test", "runpod_api_key": "rpa_test", "runpod_endpoint": "endpoint"}
    connections = Connections(
        Settings(home=tmp_path, object_store="s3://bucket/objects", **{**settings, **base, **secrets})
    )
    assert connections.may_submit_by_itself() is allowed


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
    later: dict[str, Any] = {field: clock() + timedelta(minutes=1)}
    add_packed_run(database, store, asked_by="cli:ada", **later)
    assert submittable(database, clock(), by_itself=True) == []
    clock.advance(minutes=1)
    assert submittable(database, clock(), by_itself=True) == [KEY]
