"""Erasing by command and in Dagster: the same plan, the same erasure, the same receipt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Erasure, ErasureStep, Image
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.partitions import MODELS, add_models
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.erasure.journal import begin_erasure
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.erasure.lives import EMAIL, KEY, USER, drop_user
from lora_pipeline_tests.erasure.test_retention import pictures, take_in


@pytest.fixture
def waiting(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> Connections:
    """A user whose photographs are taken in, and the environment of the command line."""
    drop_user(connections)
    take_in(connections)
    settings = connections.settings
    monkeypatch.setenv("LORA_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", settings.resolved_database_url)
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_test")
    monkeypatch.setenv("REPLICATE_BASE_URL", settings.replicate_base_url)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return connections


def test_the_command_plans_erases_and_shows_the_receipt(run: Run, waiting: Connections) -> None:
    planned = run("erase", EMAIL)
    assert planned.code == Exit.FINE
    assert "cannot be undone" in planned.out
    assert f"Erase: lora-pipeline erase {EMAIL} --apply" in planned.out
    assert planned.out.count("original ") == 6
    assert len(run("erase", USER, "--json").json["delete"]) >= 14
    assert len(pictures(waiting)) == 12

    done = run("erase", USER, "--apply", "--json")
    assert done.code == Exit.FINE, done.err
    assert done.json["state"] == "completed"
    assert done.json["deleted"]["original"] == 6
    assert pictures(waiting) == []
    for again in (("erase", KEY, "--apply"), ("erase", USER), ("erase", "--receipt", done.json["receipt"])):
        shown = run(*again)
        assert shown.code == Exit.FINE
        assert done.json["receipt"] in shown.out
        assert USER not in shown.out.replace(done.json["by"], "")
    found = run("resolve", KEY)
    assert (found.code, "was erased on" in found.err) == (Exit.WRONG_USE, True)
    assert "was erased on" in run("lineage", KEY).err
    uploaded = run("upload", KEY, str(drop_user(waiting).with_name(KEY)))
    assert (uploaded.code, "was erased on" in uploaded.err) == (Exit.REFUSED, True)


def test_the_command_takes_the_partition_out_of_the_homes_own_dagster(run: Run, waiting: Connections) -> None:
    folder = waiting.settings.home / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(folder)) as own:
        add_models(own, [KEY, "user-50"])
        assert run("erase", USER, "--apply", "--json").json["stays"] == []
        assert own.get_dynamic_partitions(MODELS) == ["user-50"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (USER, "--receipt", "x"),
        ("--receipt", "x", "--apply"),
        ("--receipt", "x"),
        ("nobody",),
        ("nobody", "--apply"),
    ],
)
def test_wrong_use_is_told(run: Run, home: Path, arguments: tuple[str, ...]) -> None:
    assert run("db", "upgrade").code == 0
    ended = run("erase", *arguments)
    assert ended.code == Exit.WRONG_USE
    assert ended.err


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        add_models(found, [KEY, "user-50"])
        yield found


def job(connections: Connections, name: str) -> dg.JobDefinition:
    settings = connections.settings
    overrides: dict[str, Any] = {
        "home": str(settings.home),
        "database_url": settings.resolved_database_url,
        "replicate_api_token": "r8_test",
        "replicate_base_url": settings.replicate_base_url,
    }
    return build_defs(resources={"pipeline": Pipeline(overrides=overrides)}).resolve_job_def(name)


def test_dagster_plans_by_default_and_takes_the_partition_out_when_it_erases(
    waiting: Connections, instance: dg.DagsterInstance
) -> None:
    erase_user = job(waiting, "erase_user")

    def execute(**config: Any) -> dg.ExecuteInProcessResult:
        run_config = {"ops": {"erase_one_user": {"config": {"user": USER, **config}}}}
        return erase_user.execute_in_process(run_config=run_config, instance=instance)

    assert execute().success
    assert len(pictures(waiting)) == 12
    assert execute(apply=True).success
    assert pictures(waiting) == []
    assert instance.get_dynamic_partitions(MODELS) == ["user-50"]
    with waiting.database.read() as session:
        assert session.query(Erasure).one().completed_at is not None
        assert session.query(ErasureStep).filter(ErasureStep.target.is_not(None)).count() == 0
    assert execute(apply=True).success, "again it is the receipt"


def test_no_e_mail_address_enters_dagster(waiting: Connections, instance: dg.DagsterInstance) -> None:
    result = job(waiting, "erase_user").execute_in_process(
        run_config={"ops": {"erase_one_user": {"config": {"user": EMAIL, "apply": True}}}},
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    with waiting.database.read() as session:
        assert session.query(Image).count() == 6


def test_the_schedule_runs_every_night_and_completes_erasures(
    waiting: Connections, instance: dg.DagsterInstance
) -> None:
    begin_erasure(waiting, USER, "test")
    schedule = build_defs().resolve_schedule_def("retention")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 3, 2, 3, 30, tzinfo=UTC))
    (request,) = schedule.evaluate_tick(context).run_requests or []
    result = job(waiting, request.job_name or schedule.job_name).execute_in_process(
        run_config=request.run_config, instance=instance
    )
    assert result.success
    assert pictures(waiting) == []
    assert instance.get_dynamic_partitions(MODELS) == ["user-50"]
