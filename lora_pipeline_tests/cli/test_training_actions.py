"""`trainings cancel`, `retry` and `resolve` from the command line, with a simulated provider over real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.fixtures.photographs import drop_photographs


@pytest.fixture
def ready(run: Run, at_simulator: RunningSimulator) -> Run:
    """The command line over a fresh database and a simulator."""
    assert run("db", "upgrade").code == 0
    return run


@pytest.fixture
def training(ready: Run, tmp_path: Path) -> str:
    """The number of a training that the provider has."""
    drop_photographs(tmp_path / "photos", 6)
    ready("upload", "user-50c", str(tmp_path / "photos"))
    ended = ready("train", "user-50c", "--set", "lora_rank=8", "--json")
    assert ended.code == Exit.FINE, ended.err
    return str(ended.json["run_id"])


def hold(home: Path, training: str) -> None:
    database = Database(f"sqlite:///{home / 'lora.sqlite3'}")
    with database.begin() as session:
        run = session.get_one(TrainingRun, int(training))
        run.state, run.training_id, run.hold_reason = "held", None, "its answer never arrived"
    database.close()


def test_a_cancelled_training_is_retried_as_a_new_attempt(
    ready: Run, training: str, at_simulator: RunningSimulator
) -> None:
    ended = ready("trainings", "cancel", training, "--json")
    assert (ended.code, ended.json["outcome"]) == (Exit.FINE, "canceled")
    ended = ready("trainings", "retry", training, "--json")
    assert (ended.code, ended.json["submission"], ended.json["new_attempt"]) == (Exit.FINE, "submitted", True)
    assert at_simulator.paid()["count"] == 2
    shown = ready("trainings", "show", str(ended.json["run"]), "--json").json
    assert (shown["attempt"], shown["parameters"]["lora_rank"]) == (2, 8)


def test_a_cancel_that_comes_too_late_is_refused(
    ready: Run, training: str, at_simulator: RunningSimulator
) -> None:
    at_simulator.control("trainings/end")
    ended = ready("trainings", "cancel", training)
    assert ended.code == Exit.REFUSED
    assert "too late" in ended.out


def test_a_cancel_without_an_answer_says_to_try_again(
    ready: Run, training: str, at_simulator: RunningSimulator
) -> None:
    at_simulator.fault("trainings.cancel", "drop")
    ended = ready("trainings", "cancel", training)
    assert ended.code == Exit.TRY_AGAIN
    assert "bills" in ended.out


def test_a_running_training_is_not_retried(ready: Run, training: str) -> None:
    ended = ready("trainings", "retry", training)
    assert ended.code == Exit.REFUSED
    assert f"trainings cancel {training}" in ended.err


def test_resolve_without_a_decision_says_which_fit(ready: Run, training: str, home: Path) -> None:
    ended = ready("trainings", "resolve", training)
    assert ended.code == Exit.WRONG_USE
    assert "needs no decision" in ended.err
    hold(home, training)
    ended = ready("trainings", "resolve", training)
    assert ended.code == Exit.WRONG_USE
    assert "its answer never arrived" in ended.err
    assert "--resubmit | --adopt TRAINING_ID | --abandon" in ended.err


def test_resubmitting_what_the_provider_has_adopts_it(
    ready: Run, training: str, home: Path, at_simulator: RunningSimulator
) -> None:
    job_id = at_simulator.paid()["trainings"][0]["id"]
    hold(home, training)
    ended = ready("trainings", "resolve", training, "--resubmit", "--json")
    assert (ended.code, ended.json["decision"], ended.json["state"]) == (Exit.FINE, "adopted", "submitted")
    assert ready("trainings", "show", training, "--json").json["training_id"] == job_id


def test_a_named_training_is_adopted_and_an_unknown_one_is_not(
    ready: Run, training: str, home: Path, at_simulator: RunningSimulator
) -> None:
    job_id = at_simulator.paid()["trainings"][0]["id"]
    hold(home, training)
    assert ready("trainings", "resolve", training, "--adopt", "a" * 26).code != Exit.FINE
    assert ready("trainings", "resolve", training, "--adopt", job_id).code == Exit.FINE


def test_an_abandoned_training_keeps_the_reason(ready: Run, training: str, home: Path) -> None:
    hold(home, training)
    ended = ready("trainings", "resolve", training, "--abandon", "--why", "wrong photographs")
    assert ended.code == Exit.FINE
    shown = ready("trainings", "show", training, "--json").json
    assert shown["state"] == "failed"
    assert "wrong photographs" in shown["error"]


@pytest.mark.parametrize("action", ["cancel", "retry", "resolve"])
def test_an_unknown_training_is_wrong_use(ready: Run, action: str) -> None:
    ended = ready("trainings", action, "4711")
    assert ended.code == Exit.WRONG_USE
    assert "4711" in ended.err
