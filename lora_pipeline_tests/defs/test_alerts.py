"""Whoever is on call is told what failed: once, without secrets, and again where nobody took it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
from pydantic import SecretStr

from lora_pipeline.callbacks.alerting import AlertNotTaken, alert
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback, UserModel
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.checks import standing_checks_sensor
from lora_pipeline.defs.inventory import deduplicate
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.objects import ObjectStore
from lora_pipeline.settings import Settings
from lora_pipeline_tests.fixtures.http_receiver import PATH, HttpReceiver, receiving
from lora_pipeline_tests.fixtures.pipeline import add_model, add_packed_run
from lora_pipeline_tests.trainings.steps import set_run

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture
def chat() -> Iterator[HttpReceiver]:
    found = HttpReceiver()
    with receiving(found):
        yield found


def pipeline(database: Database, chat: HttpReceiver, **more: str) -> Pipeline:
    url = database.url.render_as_string(hide_password=False)
    return Pipeline(overrides={"database_url": url, "alert_url": chat.url, **more})


def tick(resource: Pipeline, cursor: str | None) -> str:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance, resources={"pipeline": resource}, cursor=cursor
        ) as context,
    ):
        result = standing_checks_sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert result.asset_events
    return result.cursor or ""


def test_a_check_that_begins_to_fail_is_told_once_and_again_after_it_was_well(
    sqlite_database: Database, store: ObjectStore, chat: HttpReceiver
) -> None:
    resource = pipeline(sqlite_database, chat)
    run_id = add_packed_run(sqlite_database, store)
    cursor = tick(resource, None)
    assert (cursor, chat.taken) == ("", [])
    set_run(sqlite_database, run_id, state="held", hold_reason="nobody knows")
    cursor = tick(resource, cursor)
    cursor = tick(resource, cursor)
    (said,) = chat.taken
    assert said == {
        "text": "stuck_trainings: trainings wait for a person, or cost money for nothing. "
        "Look: lora-pipeline trainings"
    }
    set_run(sqlite_database, run_id, state="aborted", hold_reason=None)
    cursor = tick(resource, cursor)
    set_run(sqlite_database, run_id, state="held", hold_reason="again")
    tick(resource, cursor)
    assert len(chat.taken) == 2


def test_a_callback_that_fails_is_told_once_it_is_given_up(
    sqlite_database: Database, chat: HttpReceiver
) -> None:
    resource = pipeline(sqlite_database, chat, callback_url="https://app.example/hooks")
    now = datetime.now(UTC)
    row = Callback(
        event_id="evt_1",
        kind="training.failed",
        model_id=add_model(sqlite_database),
        payload={"modelId": "user-50c"},
        attempts=1,
        created_at=now,
        next_attempt_at=now,
    )
    with sqlite_database.begin() as session:
        session.add(row)
    assert (tick(resource, None), chat.taken) == ("", [])
    with sqlite_database.begin() as session:
        session.get_one(Callback, row.id).given_up_at = now
    assert tick(resource, "") == "undelivered_callbacks"
    assert len(chat.taken) == 1


def test_what_nobody_took_is_told_by_the_next_tick(
    sqlite_database: Database, store: ObjectStore, chat: HttpReceiver
) -> None:
    resource = pipeline(sqlite_database, chat)
    set_run(sqlite_database, add_packed_run(sqlite_database, store), state="held", hold_reason="x")
    chat.status = 500
    cursor = tick(resource, None)
    assert (cursor, len(chat.taken)) == ("", 1)
    chat.status = 200
    assert tick(resource, cursor) == "stuck_trainings"


def test_a_chat_that_takes_nothing_is_not_asked_for_every_check(
    sqlite_database: Database, store: ObjectStore, chat: HttpReceiver
) -> None:
    url = sqlite_database.url.render_as_string(hide_password=False)
    told = {"callback_url": "https://app.example.com/hook", "callback_secret": SECRET}
    resource = Pipeline(overrides={"database_url": url, "alert_url": chat.url} | told)
    set_run(sqlite_database, add_packed_run(sqlite_database, store), state="held", hold_reason="x")
    with sqlite_database.begin() as session:
        session.add(
            Callback(
                event_id="e1",
                kind="version.changed",
                model_id=session.query(UserModel).one().id,
                payload={"modelId": "m"},
                created_at=NOW,
                next_attempt_at=NOW,
                given_up_at=NOW,
                attempts=9,
            )
        )
    chat.status = 500
    assert tick(resource, None) == ""
    assert len(chat.taken) == 1
    chat.status = 200
    assert tick(resource, "") == "stuck_trainings,undelivered_callbacks"


def test_what_fails_already_is_told_once_there_is_an_address(
    sqlite_database: Database, store: ObjectStore, chat: HttpReceiver
) -> None:
    set_run(sqlite_database, add_packed_run(sqlite_database, store), state="held", hold_reason="x")
    url = sqlite_database.url.render_as_string(hide_password=False)
    cursor = tick(Pipeline(overrides={"database_url": url}), None)
    tick(pipeline(sqlite_database, chat), cursor)
    assert len(chat.taken) == 1


def failed_run(resource: Pipeline, instance: dg.DagsterInstance) -> str:
    """The id of a run that failed."""
    config = {"ops": {"deduplicate_registry": {"config": {"plan": "no-such-plan"}}}}
    return deduplicate.execute_in_process(
        run_config=config, resources={"pipeline": resource}, instance=instance, raise_on_error=False
    ).run_id


def look_at_runs(
    resource: Pipeline, chat: HttpReceiver, instance: dg.DagsterInstance, cursor: str | None
) -> str:
    """One tick of the sensor; its cursor."""
    definitions = build_defs({"pipeline": resource}, Settings(alert_url=SecretStr(chat.url)))
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        repository_def=repository,
        resources={"pipeline": resource},
    ) as context:
        result = repository.get_sensor_def("run_failure_alert")(context)
    assert isinstance(result, dg.SensorResult)
    return result.cursor or ""


def test_runs_that_fail_are_told_once_with_their_job_and_where_to_look(
    sqlite_database: Database, chat: HttpReceiver
) -> None:
    resource = pipeline(sqlite_database, chat)
    with dg.DagsterInstance.ephemeral() as instance:
        failed_run(resource, instance)
        cursor = look_at_runs(resource, chat, instance, None)
        assert chat.taken == [], "it failed before anybody looked"
        runs = [failed_run(resource, instance) for _ in range(2)]
        cursor = look_at_runs(resource, chat, instance, cursor)
        assert chat.taken[0]["text"].splitlines() == [f"deduplicate failed: run {run}" for run in runs]
        instance.add_run_tags(runs[0], {"somebody": "looked at it"})
        cursor = look_at_runs(resource, chat, instance, cursor)
        assert len(chat.taken) == 1


def test_a_failed_run_that_nobody_took_is_told_by_the_next_tick(
    sqlite_database: Database, chat: HttpReceiver
) -> None:
    resource = pipeline(sqlite_database, chat)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = look_at_runs(resource, chat, instance, None)
        run = failed_run(resource, instance)
        chat.status = 503
        with pytest.raises(AlertNotTaken, match="answered 503"):
            look_at_runs(resource, chat, instance, cursor)
        chat.status = 200
        look_at_runs(resource, chat, instance, cursor)
    assert chat.taken[-1] == {"text": f"deduplicate failed: run {run}"}


def test_runs_of_other_projects_are_not_told(sqlite_database: Database, chat: HttpReceiver) -> None:
    @dg.op
    def fail() -> None:
        raise ValueError

    @dg.job
    def somebody_elses() -> None:
        fail()

    resource = pipeline(sqlite_database, chat)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = look_at_runs(resource, chat, instance, None)
        somebody_elses.execute_in_process(instance=instance, raise_on_error=False)
        look_at_runs(resource, chat, instance, cursor)
    assert chat.taken == []


def test_without_an_address_nobody_is_told_and_there_is_no_sensor() -> None:
    names = {sensor.name for sensor in build_defs(settings=Settings()).sensors or ()}
    assert "run_failure_alert" not in names
    assert not alert(Settings(), "anything")


def test_the_address_is_a_secret(chat: HttpReceiver, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(alert_url=SecretStr(chat.url))
    chat.status = 404
    with (
        caplog.at_level(logging.DEBUG, "lora_pipeline"),
        pytest.raises(AlertNotTaken, match="answered 404") as told,
    ):
        alert(settings, "something")
    settings = Settings(alert_url=SecretStr(f"http://127.0.0.1:1{PATH}"))
    with pytest.raises(AlertNotTaken, match="no answer") as away:
        alert(settings, "something")
    for text in (str(told.value), str(away.value), repr(settings), caplog.text):
        assert "in-the-address" not in text


def test_no_redirect_is_followed(chat: HttpReceiver) -> None:
    chat.status = 307
    with pytest.raises(AlertNotTaken, match="it answered 307"):
        alert(Settings(alert_url=SecretStr(chat.url)), "something")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="starts with https"):
        Settings(alert_url=SecretStr("hooks.example.com/x"))
