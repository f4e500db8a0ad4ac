"""Duplicates in Dagster: the report and its check, the job that applies by id, the schedule that only plans."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from sqlalchemy import text

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import MergePlan, VersionRedirect
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.inventory import duplicate_report
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline_tests.versions.registered import add_version


@pytest.fixture
def pipeline(sqlite_database: Database) -> Pipeline:
    """A registry with one LoRA twice."""
    for number, address in ((1, "s3://b/k.safetensors"), (2, "https://b.s3.amazonaws.com/k.safetensors")):
        add_version(sqlite_database, "style_1", number, weights_url=address, provider_version=None)
    with sqlite_database.begin() as session:
        session.execute(text("DELETE FROM version_aliases WHERE kind = 'training_id'"))
    return Pipeline(overrides={"database_url": sqlite_database.url.render_as_string(hide_password=False)})


def _materialise(pipeline: Pipeline) -> dg.ExecuteInProcessResult:
    return dg.materialize([duplicate_report], resources={"pipeline": pipeline})


def test_the_report_plans_and_its_check_fails_until_the_plan_is_applied(
    pipeline: Pipeline, sqlite_database: Database
) -> None:
    result = _materialise(pipeline)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    with sqlite_database.read() as session:
        plan = session.query(MergePlan).one()
    assert (plan.state, len(plan.groups)) == ("planned", 1)

    job = build_defs(resources={"pipeline": pipeline}).resolve_job_def("deduplicate")
    config = {"ops": {"deduplicate_registry": {"config": {"plan": plan.id}}}}
    assert job.execute_in_process(run_config=config).success
    (check,) = _materialise(pipeline).get_asset_check_evaluations()
    assert check.passed


def test_the_schedules_run_reports_plans_and_merges_nothing(
    pipeline: Pipeline, sqlite_database: Database
) -> None:
    defs = build_defs(resources={"pipeline": pipeline})
    schedule = defs.resolve_schedule_def("weekly_deduplication_plan")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 3, 2, 4, tzinfo=UTC))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    job = defs.resolve_job_def(request.job_name or schedule.job_name)
    for _ in ("this week", "the next"):
        result = job.execute_in_process(run_config=request.run_config, tags=request.tags)
        (report,) = result.asset_materializations_for_node("duplicate_report")
        assert report.metadata["duplicates"].value == 1
        (check,) = result.get_asset_check_evaluations()
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    with sqlite_database.read() as session:
        plan = session.query(MergePlan).one()
        assert plan.state == "planned", "one plan however often it is made, and not applied"
        assert session.query(VersionRedirect).count() == 0
    assert f"dedupe --apply --plan {plan.id}" in str(check.metadata["apply with"].value)


def test_the_job_without_a_plan_merges_nothing(pipeline: Pipeline, sqlite_database: Database) -> None:
    job = build_defs(resources={"pipeline": pipeline}).resolve_job_def("deduplicate")
    assert job.execute_in_process().success
    with sqlite_database.read() as session:
        assert [plan.state for plan in session.query(MergePlan)] == ["planned"]


def test_the_job_fails_where_nothing_could_be_merged(pipeline: Pipeline, sqlite_database: Database) -> None:
    _materialise(pipeline)
    with sqlite_database.begin() as session:
        plan = session.query(MergePlan).one().id
        session.execute(text("UPDATE model_versions SET image_count = 7"))
    job = build_defs(resources={"pipeline": pipeline}).resolve_job_def("deduplicate")
    config = {"ops": {"deduplicate_registry": {"config": {"plan": plan}}}}
    result = job.execute_in_process(run_config=config, raise_on_error=False)
    assert not result.success
    with sqlite_database.read() as session:
        assert session.query(VersionRedirect).count() == 0
