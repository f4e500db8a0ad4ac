"""What errors become: one exit code each, one clear message, no traceback, no secret."""

from __future__ import annotations

import importlib
from itertools import permutations

import pytest
from pydantic import ValidationError

from lora_pipeline.cli.exits import CODES, Exit, exit_code_of, message_of, most_serious
from lora_pipeline.providers.protocol import ProviderError, Refused, Throttled, UnknownOutcome
from lora_pipeline.settings import Settings, SettingsError
from lora_pipeline_tests.cli.conftest import Run


@pytest.mark.parametrize("name", CODES)
def test_every_named_error_exists(name: str) -> None:
    module, _, cls = name.rpartition(".")
    found = getattr(importlib.import_module(module), cls)

    assert issubclass(found, Exception)
    assert f"{found.__module__}.{found.__qualname__}" == name


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Throttled("429", retry_after=3.0), Exit.TRY_AGAIN),
        (UnknownOutcome("timed out"), Exit.TRY_AGAIN),
        (Refused("422"), Exit.ERROR),
        (ProviderError("odd"), Exit.ERROR),
        (SettingsError("REPLICATE_API_TOKEN environment variable is not set"), Exit.WRONG_USE),
        (RuntimeError("a defect"), Exit.ERROR),
    ],
)
def test_an_error_has_its_nearest_class_s_code(error: Exception, code: Exit) -> None:
    assert exit_code_of(error) is code


def test_the_most_serious_code_wins_in_any_order() -> None:
    order = [Exit.ERROR, Exit.WRONG_USE, Exit.TRY_AGAIN, Exit.REFUSED, Exit.DRIFT, Exit.FINE]
    for first, second in permutations(order, 2):
        assert most_serious([first, second]) is min(first, second, key=order.index)
    assert most_serious([]) is Exit.FINE


def test_a_bad_setting_is_named_and_its_value_kept_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_READY_IMAGES", "hunter2")
    ended = run("trainings")

    assert ended.code == Exit.WRONG_USE
    assert "LORA_READY_IMAGES" in ended.err
    assert "hunter2" not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "name", ["LORA_CALLBACK_SECRET", "LORA_REPLICATE_WEBHOOK_SECRET", "LORA_ALERT_URL", "LORA_CALLBACK_URL"]
)
def test_why_definitions_do_not_load_quotes_no_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "hunter2" not in str(refused.value)  # Dagster shows it in the UI and in its log


def test_an_unreachable_database_is_one_line_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/nothing")
    ended = run("versions", "anybody")

    assert ended.code == Exit.ERROR
    assert "refused" in ended.err.lower()
    assert "DATABASE_URL" in ended.err
    assert "hunter2" not in ended.err
    assert "sqlalche.me" not in ended.err


def test_a_missing_schema_names_the_command_that_makes_it(run: Run) -> None:
    ended = run("trainings")

    assert ended.code == Exit.ERROR
    assert "Run: lora-pipeline db upgrade" in ended.err


def test_an_error_without_words_is_still_named() -> None:
    assert "ZeroDivisionError" in message_of(ZeroDivisionError())


def test_debugging_shows_where_an_error_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_DEBUG", "1")
    monkeypatch.setenv("DATABASE_URL", "nonsense")
    with pytest.raises(ValueError, match="DATABASE_URL cannot be read"):
        run("trainings")
