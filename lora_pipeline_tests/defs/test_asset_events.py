"""Events owed to Dagster, given to a real instance by the real sensor function."""

from collections.abc import Iterator

import dagster as dg
import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.defs.sensors import build_sensors
from lora_pipeline.settings import Settings
from lora_pipeline.trainings.outbox import AssetEvent, owe, owed
from lora_pipeline_tests.fixtures.pipeline import T0

FACTS = {
    "run": 1,
    "attempt": 1,
    "state": "submitted",
    "simulated": True,
    "trainer": "ostris/flux-dev-lora-trainer",
    "parameters": {"steps": 1000},
    "parameter_policy": "default/1",
    "training_id": "abc",
    "progress": 0,
    "hold_reason": None,
    "error": None,
    "estimated_cost": 2.7,
    "cost": None,
    "duration_seconds": None,
    "loss_history": [[100, 0.5], [200, 0.3]],
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def _tick(instance: dg.DagsterInstance, database: Database, cursor: str | None) -> dg.SensorResult:
    sensor = {sensor.name: sensor for sensor in build_sensors(Settings())}["asset_event_sensor"]
    pipeline = Pipeline(overrides={"database_url": database.url.render_as_string(hide_password=False)})
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"pipeline": pipeline}
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def _owe(database: Database, count: int) -> None:
    with database.begin() as session:
        owe(
            session,
            [
                AssetEvent(f"training:{n}:submitted", "replicate_training", f"m{n}", "materialisation", FACTS)
                for n in range(count)
            ],
            T0,
        )


def test_a_tick_emits_what_is_owed_and_the_next_one_acknowledges_it(
    database: Database, instance: dg.DagsterInstance
) -> None:
    _owe(database, 3)
    first = _tick(instance, database, None)
    assert len(first.asset_events) == 3
    assert owed(database) == 3, "nothing is acknowledged before Dagster has stored the events"
    second = _tick(instance, database, first.cursor)
    assert owed(database) == 0
    assert not second.asset_events
    assert set(instance.get_dynamic_partitions("models")) == {"m0", "m1", "m2"}


def test_a_tick_that_was_cut_loses_no_event(database: Database, instance: dg.DagsterInstance) -> None:
    _owe(database, 3)
    cut = _tick(instance, database, None)
    again = _tick(instance, database, None)
    assert [event.partition for event in again.asset_events] == [e.partition for e in cut.asset_events]
    # The cut evaluation's cursor never arrives; even if it did, it acknowledges nothing of the newer claim.
    _tick(instance, database, cut.cursor)
    assert owed(database) == 3


def test_a_backlog_larger_than_a_batch_drains_over_ticks(
    database: Database, instance: dg.DagsterInstance
) -> None:
    _owe(database, 700)
    cursor, seen = None, []
    for _ in range(4):
        result = _tick(instance, database, cursor)
        cursor = result.cursor
        seen += [event.partition for event in result.asset_events]
    assert len(seen) == len(set(seen)) == 700
    assert owed(database) == 0


def test_events_carry_what_a_person_looks_at(database: Database, instance: dg.DagsterInstance) -> None:
    _owe(database, 1)
    event = _tick(instance, database, None).asset_events[0]
    assert isinstance(event, dg.AssetMaterialization)
    assert event.tags == {"dagster/data_version": "abc"}
    assert "Simulated" in str(event.metadata["simulated"].value)
    assert "0.500 → 0.300" in str(event.metadata["loss"].value)
