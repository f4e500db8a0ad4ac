"""The commands of a model's way: upload, train, look, pause, with a simulated provider over real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.fixtures.photographs import drop_photographs


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    drop_photographs(tmp_path / "photos", 6)
    return tmp_path / "photos"


@pytest.fixture
def ready(run: Run, at_simulator: RunningSimulator) -> Run:
    """The command line over a fresh database and a simulator."""
    assert run("db", "upgrade").code == 0
    return run


def test_photographs_are_taken_in_and_each_is_told_of(ready: Run, photographs: Path) -> None:
    (photographs / "notes.jpg").write_text("no picture at all")
    ended = ready("upload", "user-50c", str(photographs), "--json")

    assert ended.json["included"] == 6
    states = {file["name"]: file["state"] for file in ended.json["files"]}
    assert states.pop("notes.jpg") != "included"
    assert set(states.values()) == {"included"}


def test_a_folder_without_a_file_is_wrong_use(ready: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = ready("upload", "user-50c", str(tmp_path / "empty"))

    assert ended.code == Exit.WRONG_USE
    assert "empty" in ended.err
    assert "expected photographs" in ended.err


def test_four_images_are_refused_with_the_reason(ready: Run, tmp_path: Path) -> None:
    drop_photographs(tmp_path / "four", 4)
    assert ready("upload", "user-50c", str(tmp_path / "four")).code == Exit.FINE
    ended = ready("train", "user-50c")

    assert ended.code == Exit.REFUSED
    assert "At least 5 training images are required" in ended.err


def test_a_training_is_submitted_once_and_shown(
    ready: Run, photographs: Path, at_simulator: RunningSimulator
) -> None:
    ready("upload", "user-50c", str(photographs))
    ended = ready("train", "user-50c", "--steps", "1200", "--set", "lora_rank=8", "--json")

    assert ended.code == Exit.FINE
    assert ended.json["outcome"] == "submitted"
    assert ended.json["simulated"] is True
    shown = ready("trainings", "show", ended.json["training_id"], "--json").json
    assert shown["model"] == "user-50c"
    assert shown["parameters"]["steps"] == 1200
    assert shown["parameters"]["lora_rank"] == 8
    assert shown["asked_by"].startswith("cli")
    assert at_simulator.paid()["count"] == 1

    again = ready("train", "user-50c")
    assert again.code == Exit.FINE
    assert at_simulator.paid()["count"] == 1
    assert [row["run"] for row in ready("trainings", "--open", "--json").json] == [shown["run"]]


def test_parameters_that_the_trainer_would_refuse_cost_nothing(
    ready: Run, photographs: Path, at_simulator: RunningSimulator
) -> None:
    ready("upload", "user-50c", str(photographs))
    ended = ready("train", "user-50c", "--set", "stepps=1200")

    assert ended.code == Exit.REFUSED
    assert "did you mean steps?" in ended.err
    assert at_simulator.paid()["count"] == 0


def test_paused_submissions_wait_and_say_so(
    ready: Run, photographs: Path, at_simulator: RunningSimulator
) -> None:
    ready("upload", "user-50c", str(photographs))
    assert ready("trainings", "pause", "--reason", "budget review").code == Exit.FINE
    ended = ready("train", "user-50c")

    assert ended.code == Exit.TRY_AGAIN
    assert "budget review" in ended.err
    assert at_simulator.paid()["count"] == 0

    assert ready("trainings", "resume").code == Exit.FINE
    assert ready("train", "user-50c").code == Exit.FINE
    assert at_simulator.paid()["count"] == 1


def test_without_a_token_and_a_simulator_the_missing_variable_is_named(
    run: Run, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_IMAGE_PROFILE", "demo")
    run("db", "upgrade")
    run("upload", "user-50c", str(photographs))
    ended = run("train", "user-50c")

    assert ended.code == Exit.WRONG_USE
    assert "REPLICATE_API_TOKEN environment variable is not set" in ended.err


def test_a_new_model_is_what_the_options_say_and_an_old_one_stays(ready: Run, photographs: Path) -> None:
    described = ["--type", "style", "--name", "Watercolour"]
    assert ready("upload", "style_1", str(photographs), *described).code == Exit.FINE
    ended = ready("upload", "style_1", str(photographs), "--type", "person")

    assert ended.code == Exit.FINE
    assert "exists already" in ended.err
    versions = ready("versions", "style_1")
    assert versions.code == Exit.FINE
    assert "has no version yet" in versions.out


def test_an_unknown_model_is_wrong_use_with_the_nearest_names(ready: Run, photographs: Path) -> None:
    ready("upload", "user-50c", str(photographs))
    ended = ready("versions", "user-50")

    assert ended.code == Exit.WRONG_USE
    assert "Did you mean user-50c?" in ended.err


def test_an_unknown_training_is_wrong_use(ready: Run) -> None:
    ended = ready("trainings", "show", "zzz")

    assert ended.code == Exit.WRONG_USE
    assert "'zzz'" in ended.err


def test_output_that_is_no_terminal_has_no_colours_and_whole_lines(ready: Run, photographs: Path) -> None:
    ended = ready("upload", "user-50c", str(photographs))

    assert "\x1b" not in ended.out + ended.err
    assert len([line for line in ended.out.splitlines() if line.startswith("photo ")]) == 6


def test_doctor_finds_everything_there(ready: Run) -> None:
    ended = ready("doctor", "--json")

    assert ended.code == Exit.FINE
    found = {row["what"]: row for row in ended.json}
    assert found["database"]["how"] == "fine"
    assert "simulated" in found["Replicate"]["detail"]


def test_doctor_tells_a_provider_in_trouble_from_a_wrong_setting(
    ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://127.0.0.1:1")
    assert ready("doctor").code == Exit.TRY_AGAIN
    monkeypatch.delenv("REPLICATE_API_TOKEN")
    assert ready("doctor").code == Exit.ERROR
