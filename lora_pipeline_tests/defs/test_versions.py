"""Versions in Dagster, through its own execution: the tables, the checks, the jobs and the nightly schedules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.defs.versions import nightly_bulk_sync, nightly_drift_report
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.versions.fleets import add_served, row, train_at_provider

KEY = "user-50c"


@pytest.fixture
def pipeline(sqlite_template: Path, tmp_path: Path, simulator: RunningSimulator) -> Iterator[Pipeline]:
    path = tmp_path / "lora.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    found = Pipeline(
        overrides={
            "home": str(tmp_path / "home"),
            "database_url": f"sqlite:///{path}",
            "replicate_api_token": "r8_test",
            "replicate_base_url": simulator.url,
        }
    )
    yield found
    found.connections.database.close()


@pytest.fixture
def connections(pipeline: Pipeline) -> Connections:
    return pipeline.connections


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def execute(
    job: str, pipeline: Pipeline, instance: dg.DagsterInstance, config: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    found = build_defs(resources={"pipeline": pipeline}).resolve_job_def(job)
    return found.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def metadata(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def bulk(**config: object) -> dict[str, Any]:
    return {"ops": {"sync_all_models": {"config": config}}}


def test_the_report_as_a_table_with_its_check(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    made = train_at_provider(simulator, KEY, times=3)
    add_served(connections.database, KEY, made[0]["version"], email="fifty@example.org")
    simulator.control("requests/reset")

    result = execute("report_drift", pipeline, instance)

    assert result.success
    assert simulator.requests()["models.versions.list"] == 1, "the report uses what the other asset saw"
    provider, report = metadata(instance, "provider_versions"), metadata(instance, "sync_report")
    assert (provider["models with a version"], provider["versions at the last count"]) == (1, 3)
    assert (report["total users"], report["users needing sync"], report["errors"]) == (1, 1, 0)
    (line,) = [record.data for record in report["sync status"].records]
    assert (line["model"], line["status"], line["verdict"]) == (KEY, "Needs Sync", "behind")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert set(checks) == {"drift", "version_format", "one_active_version", "weights_present"}
    assert not checks["drift"].passed
    assert checks["drift"].severity is dg.AssetCheckSeverity.WARN
    assert checks["version_format"].passed
    assert not checks["one_active_version"].passed, "its history has not begun"


def test_no_person_and_no_weights_address_reaches_dagster(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    made = train_at_provider(simulator, KEY, times=2)
    add_served(connections.database, KEY, made[0]["version"], email="fifty@example.org")
    for job in ("report_drift", "bulk_sync", "report_drift"):
        result = execute(job, pipeline, instance)
        assert result.success
        told = json.dumps([str(event) for event in result.all_events])
        told += json.dumps([str(record) for record in instance.all_logs(result.run_id)])
        assert "fifty@example.org" not in told
        assert "trained_model.tar" not in told


def test_one_model_is_synced_by_its_job(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    made = train_at_provider(simulator, KEY, times=2)
    add_served(connections.database, KEY, made[0]["version"])
    config = {"ops": {"sync_one_model": {"config": {"model": KEY}}}}
    assert execute("sync_model", pipeline, instance, config).success
    assert row(connections, KEY).replicate_version_id == made[1]["version"]
    simulator.fault("models.versions.list", "answer", status=500, times=9)
    assert not execute("sync_model", pipeline, instance, config).success


def test_a_bulk_sync_plans_filters_and_acts(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    versions = {}
    for key in (KEY, "user-51d"):
        old, new = (one["version"] for one in train_at_provider(simulator, key, times=2))
        add_served(connections.database, key, old)
        versions[key] = (old, new)

    assert execute("bulk_sync", pipeline, instance, bulk(plan_only=True)).success
    assert row(connections, KEY).replicate_version_id == versions[KEY][0]
    assert execute("bulk_sync", pipeline, instance, bulk(filter="user-51*", deep=True)).success
    assert row(connections, KEY).replicate_version_id == versions[KEY][0]
    assert row(connections, "user-51d").replicate_version_id == versions["user-51d"][1]
    assert execute("bulk_sync", pipeline, instance).success
    assert row(connections, KEY).replicate_version_id == versions[KEY][1]

    after = execute("report_drift", pipeline, instance)
    assert all(check.passed for check in after.get_asset_check_evaluations())


def test_a_provider_that_answers_nobody_fails_the_run(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    add_served(connections.database, KEY, "a" * 64)
    simulator.fault("any", "answer", status=503, times=1000)
    assert not execute("bulk_sync", pipeline, instance).success


def test_errors_are_worse_than_drift(
    pipeline: Pipeline, connections: Connections, simulator: RunningSimulator, instance: dg.DagsterInstance
) -> None:
    add_served(connections.database, "gone", "a" * 64, lora_weights_url=None)
    result = execute("report_drift", pipeline, instance)
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["drift"].severity is dg.AssetCheckSeverity.ERROR
    assert not checks["weights_present"].passed
    assert not checks["version_format"].passed, "a bare hash is understood, and to be written whole"


def test_the_nightly_schedules_are_on_and_ask_for_a_run(pipeline: Pipeline) -> None:
    for schedule in (nightly_bulk_sync, nightly_drift_report):
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        with dg.build_schedule_context(resources={"pipeline": pipeline}) as context:
            assert isinstance(schedule(context), dg.RunRequest)


def test_without_a_provider_the_night_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    pipeline = Pipeline(overrides={"home": str(tmp_path / "home")})
    with dg.build_schedule_context(resources={"pipeline": pipeline}) as context:
        answer = nightly_bulk_sync(context)
    assert isinstance(answer, dg.SkipReason)
    assert "REPLICATE_API_TOKEN" in str(answer.skip_message)


def test_the_definitions_carry_all_of_it() -> None:
    defs = build_defs()
    graph = defs.resolve_asset_graph()
    assert {dg.AssetKey("provider_versions"), dg.AssetKey("sync_report")} <= set(graph.get_all_asset_keys())
    assert {"sync_model", "bulk_sync", "report_drift"} <= {job.name for job in defs.resolve_all_job_defs()}
    assert {key.name for key in graph.asset_check_keys} >= {
        "drift",
        "version_format",
        "one_active_version",
        "weights_present",
    }
