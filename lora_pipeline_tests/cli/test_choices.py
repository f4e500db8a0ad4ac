"""`activate`, `pin`, `unpin`, `rollback`, `history` and `resolve` from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.versions.fleets import add_served, train_at_provider
from lora_pipeline_tests.versions.registered import add_version, provider_version


@pytest.fixture
def database(run: Run, home: Path) -> Iterator[Database]:
    """The database that the command line uses, without a provider to ask."""
    assert run("db", "upgrade").code == 0
    database = Database(f"sqlite:///{home / 'lora.sqlite3'}")
    yield database
    database.close()


@pytest.fixture
def three_versions(database: Database) -> None:
    for number, day in ((1, 1), (2, 5), (3, 9)):
        add_version(database, "user-50c", number, now=datetime(2026, 3, day, 12, tzinfo=UTC))


def test_a_rollback_is_one_command_and_the_history_tells_it(run: Run, three_versions: None) -> None:
    ended = run("rollback", "user-50c", "--reason", "faces look odd")
    assert ended.code == Exit.FINE
    assert ended.out.startswith("user-50c: V2 is served, pinned")
    assert "It was V3." in ended.out
    (now, *_) = run("history", "user-50c", "--json").json["served"]
    assert (now["version"], now["pinned"], now["why"], now["to"]) == ("V2", True, "faces look odd", None)
    assert now["by"].startswith("cli")
    assert now["rolled_back"]


def test_choices_as_json_say_what_changed(run: Run, three_versions: None) -> None:
    activated = run("activate", "user-50c", provider_version("user-50c", 1), "--json").json
    assert (activated["version"], activated["previous"], activated["pinned"]) == ("V1", "V3", True)
    assert run("unpin", "user-50c", "--json").json["pinned"] is False
    assert run("pin", "user-50c", "--json").json["changed"] is True
    assert run("pin", "user-50c", "--json").json["changed"] is False
    late = run("rollback", "user-50c", "--from", "V3", "--json").json
    assert (late["version"], late["changed"]) == ("V1", False)


def test_what_was_live_on_a_day(run: Run, three_versions: None) -> None:
    def live(when: str) -> list[str]:
        return [row["version"] for row in run("history", "user-50c", "--at", when, "--json").json["served"]]

    assert live("2026-03-03") == ["V1"]
    assert live("2026-03-05") == ["V2", "V1"]
    assert live("2026-03-05T12:00") == ["V2"]
    assert live("2026-02-01") == []
    assert "live on 2026-03-05 (UTC)" in run("history", "user-50c", "--at", "2026-03-05").out
    assert "nothing" in run("history", "user-50c", "--at", "2026-02-01").out


MISTAKES = [
    (["activate", "user-50c", "V9"], Exit.WRONG_USE, "it has V1, V2, V3"),
    (["activate", "nobody", "V1"], Exit.WRONG_USE, "nobody"),
    (["history", "user-50c", "--at", "yesterday"], Exit.WRONG_USE, "2026-03-01T12:30"),
    (["history", "user-50c", "--at", "2999-01-01"], Exit.WRONG_USE, "still to come"),
    (["rollback", "user-new"], Exit.REFUSED, "serves no registered version yet"),
    (["resolve", "user-new"], Exit.ERROR, "lora-pipeline why user-new"),
]


def test_what_cannot_be_done_ends_with_its_code_and_says_why(
    run: Run, database: Database, three_versions: None
) -> None:
    add_served(database, "user-new", None, replicate_model_id=None, training_status="pending")
    for arguments, code, said in MISTAKES:
        ended = run(*arguments)
        assert (ended.code, said in ended.err) == (code, True), (arguments, ended.err)


def test_resolve_without_a_provider_gives_the_last_known_good_and_says_so(
    run: Run, three_versions: None
) -> None:
    found = run("resolve", "user-50c", "--json").json
    assert (found["version"], found["stale"], found["verdict"]) == ("V3", True, None)
    shown = run("resolve", "user-50c")
    assert shown.code == Exit.FINE
    assert provider_version("user-50c", 3) in shown.out


def test_the_first_resolve_after_a_deployment_repairs_an_outdated_version(
    run: Run, database: Database, at_simulator: RunningSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _, latest = [row["version"] for row in train_at_provider(at_simulator, "user-50c", 3)]
    add_served(database, "user-50c", old)
    found = _resolved(run)
    assert (found["provider_version"], found["verdict"]) == (latest, "up_to_date")
    assert found["prediction_version"] == latest.partition(":")[2]
    asked = sum(at_simulator.requests().values())
    run("resolve", "user-50c")
    assert sum(at_simulator.requests().values()) == asked, "once a deployment"
    monkeypatch.setenv("LORA_DEPLOYMENT_ID", "the next release")
    _resolved(run)
    assert sum(at_simulator.requests().values()) > asked


def _resolved(run: Run) -> Any:
    """The answer once it is confirmed: on a busy machine the check may outlast the first call's patience."""
    deadline = time.monotonic() + 30
    while (found := run("resolve", "user-50c", "--json").json)["stale"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
