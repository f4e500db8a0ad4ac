"""sync-status, sync and why on the command line: what they show and how they end."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.versions.fleets import add_served, row, train_at_provider

KEY = "user-50c"


@pytest.fixture
def connections(run: Run, at_simulator: RunningSimulator) -> Iterator[Connections]:
    """What the commands connect to as well."""
    assert run("db", "upgrade").code == 0
    found = Connections(Settings())
    yield found
    found.database.close()


@pytest.fixture
def behind(connections: Connections, at_simulator: RunningSimulator) -> list[str]:
    """user-50c serves the first of three versions."""
    versions = [one["version"] for one in train_at_provider(at_simulator, KEY, times=3)]
    add_served(connections.database, KEY, versions[0], email="fifty@example.org")
    return versions


def test_the_worked_example_from_drift_to_up_to_date(
    run: Run, connections: Connections, behind: list[str]
) -> None:
    found = run("sync-status")
    assert found.code == 3
    assert "Needs Sync" in found.out
    assert "Users needing sync: 1" in found.out

    reason = run("why", KEY)
    assert reason.code == 3
    assert f"lora-pipeline sync {KEY}" in reason.out
    assert behind[2].partition(":")[2][:12] in reason.out

    assert run("sync", KEY).code == 0
    assert row(connections, KEY).replicate_version_id == behind[2]
    again = run("sync", KEY)
    assert (again.code, "no update was needed" in again.out) == (0, True)

    status = run("sync-status", "--json")
    assert status.code == 0
    assert status.json["users"][0]["status"] == "Up to Date"
    assert run("why", KEY, "--json").json["verdict"] == "up_to_date"


@pytest.mark.parametrize("columns", ["80", "200"])
def test_why_breaks_no_address_whatever_the_terminals_width(
    run: Run, connections: Connections, behind: list[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = run("why", KEY).out
    assert f"modelName      {KEY}" in shown
    assert behind[0].partition(":")[0] in shown
    assert len(shown.splitlines()[3]) <= int(columns)


def test_a_bulk_sync_plans_first_and_acts_with_apply(
    run: Run, connections: Connections, behind: list[str]
) -> None:
    plan = run("sync", "--all")
    assert plan.code == 3
    assert "nothing was changed" in plan.out
    assert row(connections, KEY).replicate_version_id == behind[0]
    done = run("sync", "--all", "--apply", "--json")
    assert (done.code, done.json["outcomes"]) == (0, {"updated": 1})
    assert row(connections, KEY).replicate_version_id == behind[2]


def test_trouble_at_the_provider_ends_with_six(
    run: Run, connections: Connections, behind: list[str], at_simulator: RunningSimulator
) -> None:
    at_simulator.fault("any", "answer", status=503, times=1000)
    assert run("sync-status").code == 6
    assert run("sync", KEY).code == 6
    assert run("sync", "--all", "--apply").code == 6
    assert run("why", KEY).code == 6
    assert row(connections, KEY).replicate_version_id == behind[0]


def test_an_error_of_our_own_ends_with_one(run: Run, connections: Connections) -> None:
    add_served(connections.database, "gone", "a" * 64)
    assert run("sync-status").code == 1
    assert run("sync", "gone").code == 1


def test_csv_goes_to_a_file(run: Run, connections: Connections, behind: list[str], tmp_path: Path) -> None:
    run("sync-status", "--csv", str(tmp_path / "report.csv"))
    with (tmp_path / "report.csv").open(encoding="utf-8") as file:
        (record,) = csv.DictReader(file)
    assert (record["modelKey"], record["verdict"]) == (KEY, "behind")
    assert behind


@pytest.mark.parametrize("arguments", [(), (KEY, "--all"), (KEY, "--apply"), (KEY, "--deep")])
def test_wrong_use_is_said(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("sync", *arguments).code == 2


def test_an_empty_report_says_where_to_look(run: Run, connections: Connections) -> None:
    found = run("sync-status")
    assert found.code == 0
    assert "Check if any users have training_status = 'completed'" in found.out
