"""The standing checks, evaluated by a person and by their sensor."""

from datetime import UTC, datetime

import dagster as dg
from sqlalchemy import select

from lora_pipeline.callbacks.owing import version_changed
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback, ModelVersion, UserModel
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.checks import (
    standing_checks_sensor,
    stuck_trainings_check,
    undelivered_callbacks_check,
)
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.objects import ObjectStore
from lora_pipeline_tests.fixtures.pipeline import Clock, add_model, add_packed_run
from lora_pipeline_tests.trainings.steps import ago, set_run


def _pipeline(database: Database, **overrides: str) -> Pipeline:
    url = database.url.render_as_string(hide_password=False)
    return Pipeline(overrides={"database_url": url, **overrides})


def test_a_held_training_fails_the_check_with_what_to_do(
    sqlite_database: Database, store: ObjectStore, clock: Clock
) -> None:
    run_id = add_packed_run(sqlite_database, store)
    result = stuck_trainings_check(_pipeline(sqlite_database))
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed
    set_run(sqlite_database, run_id, state="held", hold_reason="nobody knows")
    result = stuck_trainings_check(_pipeline(sqlite_database))
    assert isinstance(result, dg.AssetCheckResult)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.ERROR)
    table = result.metadata["trainings"]
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = table.records
    assert row.data["why"] == "nobody knows"
    assert str(row.data["next"]).startswith(f"lora-pipeline trainings resolve {run_id} --resubmit")


def test_what_merely_waits_is_a_warning(sqlite_database: Database, store: ObjectStore, clock: Clock) -> None:
    set_run(sqlite_database, add_packed_run(sqlite_database, store), state_changed_at=ago(clock, hours=2))
    result = stuck_trainings_check(_pipeline(sqlite_database))
    assert isinstance(result, dg.AssetCheckResult)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_the_sensor_reports_the_check_without_a_run(sqlite_database: Database, store: ObjectStore) -> None:
    set_run(sqlite_database, add_packed_run(sqlite_database, store), state="lost", hold_reason="404")
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"pipeline": _pipeline(sqlite_database)}
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            result = standing_checks_sensor(context)
        assert isinstance(result, dg.SensorResult)
        for evaluation in result.asset_events:
            instance.report_runless_asset_event(evaluation)
        key = dg.AssetCheckKey(dg.AssetKey("version_registry"), "stuck_trainings")
        (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert record.status.value == "FAILED"


def test_a_callback_that_is_not_taken_fails_its_check(sqlite_database: Database) -> None:
    def result(**overrides: str) -> dg.AssetCheckResult:
        found = undelivered_callbacks_check(_pipeline(sqlite_database, **overrides))
        assert isinstance(found, dg.AssetCheckResult)
        return found

    told = {"callback_url": "https://app.example/hooks"}
    now = datetime.now(UTC)
    with sqlite_database.begin() as session:
        model = session.get_one(UserModel, add_model(sqlite_database))
        version = ModelVersion(number=1, trigger_word="user50c", simulated=False)
        session.add(Callback(**version_changed(model, version, "a test", now)))
    assert result(**told).passed, "it is owed, and was not tried yet"
    with sqlite_database.begin() as session:
        row = session.scalars(select(Callback)).one()
        row.attempts, row.last_error = 3, "answered 500"
    failing = result(**told)
    assert (failing.passed, failing.severity) == (False, dg.AssetCheckSeverity.WARN)
    with sqlite_database.begin() as session:
        session.scalars(select(Callback)).one().given_up_at = now
    given_up = result(**told)
    assert (given_up.passed, given_up.severity) == (False, dg.AssetCheckSeverity.ERROR)
    table = given_up.metadata["callbacks"]
    assert isinstance(table, dg.TableMetadataValue)
    assert table.records[0].data["why"] == "answered 500"
    assert str(table.records[0].data["next"]).startswith("lora-pipeline callbacks send-again evt_")
    assert result().passed, "nobody wants to be told"


def test_the_definitions_carry_the_checks() -> None:
    found = build_defs().resolve_asset_graph().asset_check_keys
    for name in ("stuck_trainings", "undelivered_callbacks"):
        assert dg.AssetCheckKey(dg.AssetKey("version_registry"), name) in found
