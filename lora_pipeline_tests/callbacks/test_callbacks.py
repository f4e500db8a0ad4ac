"""What the application is told: each change once, signed, until it is taken."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import delete, select
from standardwebhooks import Webhook

from lora_pipeline.callbacks.listing import list_callbacks
from lora_pipeline.callbacks.sending import (
    DELAYS,
    CallbackRound,
    CallbacksFail,
    Receiver,
    after_attempt,
    send_again,
    send_callbacks,
    send_due,
)
from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback, ModelVersion, TrainingRun, UserModel
from lora_pipeline.defs.callbacks import build_callback_sensors
from lora_pipeline.settings import Settings, SettingsError
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.transitions import move
from lora_pipeline.versions.activation import activate
from lora_pipeline.versions.pinning import Chooser, pin_model, roll_back
from lora_pipeline_tests.fixtures.http_receiver import HttpReceiver, receiving
from lora_pipeline_tests.fixtures.pipeline import Clock, add_model, add_packed_run

SECRET = "whsec_" + base64.b64encode(b"callback secret of the tests").decode()


class Application(HttpReceiver):
    """The application that is called back."""

    @property
    def receiver(self) -> Receiver:
        return Receiver(self.url, SECRET)


@pytest.fixture
def application() -> Iterator[Application]:
    found = Application()
    with receiving(found, Webhook(SECRET).verify):
        yield found


def end_training(database: Database, run_id: int, state: TrainingState, reason: str | None = None) -> None:
    with database.begin() as session:
        move(session, session.get_one(TrainingRun, run_id), state, datetime.now(UTC), reason=reason)


def serve(database: Database, model_id: int, number: int) -> None:
    now = datetime.now(UTC)
    with database.begin() as session:
        question = select(ModelVersion).where(
            ModelVersion.model_id == model_id, ModelVersion.number == number
        )
        version = session.scalars(question).one_or_none()
        if version is None:
            version = ModelVersion(
                model_id=model_id,
                number=number,
                provider="replicate",
                provider_version=f"acme/user-50c-selfie-lora:{number:064x}",
                trigger_word="user50c",
                created_at=now,
                updated_at=now,
            )
            session.add(version)
            session.flush()
        model = session.get_one(UserModel, model_id)
        activate(session, model, version, actor="test", reason=f"V{number} is better", now=now)


def rows(database: Database) -> list[Callback]:
    with database.read() as session:
        return list(session.scalars(select(Callback).order_by(Callback.id)))


def test_a_completed_and_a_failed_training_and_a_changed_version_are_told_signed(
    connections: Connections, application: Application
) -> None:
    database = connections.database
    end_training(
        database,
        add_packed_run(database, connections.store, training_id="job1"),
        TrainingState.FAILED,
        "CUDA out of memory",
    )
    run_id = add_packed_run(database, connections.store, training_id="job2")
    end_training(database, run_id, TrainingState.FINALISED)
    with database.read() as session:
        model_id = session.get_one(TrainingRun, run_id).model_id
    serve(database, model_id, 1)

    done = send_due(database, application.receiver, connections.now, 10)
    assert done == CallbackRound(delivered=3)
    told = {body["type"]: body["data"] for body in application.taken}
    assert told["training.failed"]["error"] == "CUDA out of memory"
    assert told["training.completed"]["trainingId"] == "job2"
    assert (told["version.changed"]["version"], told["version.changed"]["userId"]) == ("V1", "user-50c")
    assert {body["data"]["modelId"] for body in application.taken} == {"user-50c"}
    assert send_due(database, application.receiver, connections.now, 10) == CallbackRound()


def test_only_another_version_is_news(connections: Connections) -> None:
    database = connections.database
    model_id = add_model(database)
    for number in (1, 1, 2):
        serve(database, model_id, number)
    by = Chooser("test", "why", datetime.now(UTC))
    pin_model(database, "user-50c", by)
    roll_back(database, "user-50c", by)
    assert [row.payload["version"] for row in rows(database)] == ["V1", "V2", "V1"]


def test_a_change_that_is_not_committed_is_not_told(connections: Connections) -> None:
    database = connections.database
    run_id = add_packed_run(database, connections.store)

    def die_half_way() -> None:
        with database.begin() as session:
            move(session, session.get_one(TrainingRun, run_id), TrainingState.FAILED, datetime.now(UTC))
            raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError):
        die_half_way()
    assert rows(database) == []


def test_what_is_not_taken_is_sent_again_as_the_same_event_and_shown(
    connections: Connections, application: Application
) -> None:
    database = connections.database
    serve(database, add_model(database), 1)
    clock = Clock()
    application.status = 500
    done = send_due(database, application.receiver, clock, 10)
    assert (done.delivered, len(done.failed)) == (0, 1)
    assert "answered 500" in done.failed[0]
    assert send_due(database, application.receiver, clock, 10) == CallbackRound(), "not before its time"
    (shown,) = list_callbacks(database, "undelivered")
    assert (shown["attempts"], shown["last_error"]) == (1, "answered 500")

    clock.advance(seconds=6)
    application.status = 200
    assert send_due(database, application.receiver, clock, 10).delivered == 1
    assert len({headers["webhook-id"] for headers in application.headers}) == 1
    assert application.taken[0] == application.taken[1]
    assert list_callbacks(database, "undelivered") == []


def test_it_is_given_up_after_three_days_and_sent_when_somebody_asks(
    connections: Connections, application: Application
) -> None:
    database = connections.database
    serve(database, add_model(database), 1)
    clock = Clock()
    nowhere = Receiver("http://127.0.0.1:1/?token=in-the-address", SECRET)
    for _ in range(len(DELAYS)):
        assert send_due(database, nowhere, clock, 10).failed
        clock.advance(days=1)
    assert send_due(database, nowhere, clock, 10).given_up
    (row,) = rows(database)
    assert row.given_up_at is not None
    assert "in-the-address" not in str(row.last_error)
    clock.advance(days=1)
    assert send_due(database, application.receiver, clock, 10) == CallbackRound()
    assert send_again(database, row.event_id, connections.now())
    assert send_due(database, application.receiver, connections.now, 10).delivered == 1
    assert not send_again(database, "evt_none", clock())


def test_no_answer_but_a_success_counts_and_no_redirect_is_followed(
    connections: Connections, application: Application
) -> None:
    serve(connections.database, add_model(connections.database), 1)
    clock = Clock()
    for attempt, status in enumerate((301, 302, 404, 429, 503), start=1):
        application.status = status
        assert send_due(connections.database, application.receiver, clock, 10).failed
        assert len(application.taken) == attempt
        (row,) = rows(connections.database)
        assert row.last_error == f"answered {status}"
        with connections.database.begin() as session:
            session.get_one(Callback, row.id).next_attempt_at = clock()


def test_an_application_that_says_gone_is_left_alone(
    connections: Connections, application: Application
) -> None:
    serve(connections.database, add_model(connections.database), 1)
    application.status = 410
    assert send_due(connections.database, application.receiver, connections.now, 10).given_up


def test_a_callback_whose_user_is_erased_while_it_is_sent_disturbs_no_other(
    connections: Connections,
) -> None:
    database = connections.database

    def erase(_: bytes, headers: dict[str, str]) -> None:
        with database.begin() as session:
            session.execute(delete(Callback).where(Callback.event_id == headers["webhook-id"]))

    application = Application()
    with receiving(application, erase):
        for number in range(2):
            serve(database, add_model(database, f"user-{number}"), 100 + number)
        assert send_due(database, application.receiver, connections.now, 10).delivered == 2
    assert rows(database) == []


def test_two_rounds_at_once_send_nothing_twice(connections: Connections, application: Application) -> None:
    database = connections.database
    for number in range(12):
        serve(database, add_model(database, f"user-{number}"), 100 + number)
    with ThreadPoolExecutor(3) as pool:
        done = list(
            pool.map(lambda _: send_due(database, application.receiver, connections.now, 5), range(6))
        )
    assert sum(one.delivered for one in done) == 12
    assert len({headers["webhook-id"] for headers in application.headers}) == 12 == len(application.headers)


def test_a_slow_application_holds_no_tick_beyond_its_budget(
    connections: Connections, application: Application
) -> None:
    database = connections.database
    for number in range(12):
        serve(database, add_model(database, f"user-{number}"), 100 + number)
    application.delay = 0.3
    first = send_due(database, application.receiver, connections.now, 100, budget=0.1)
    assert first.delivered == 4, "no round is begun after the budget"
    assert sum(row.attempts for row in rows(database)) == 4, "what is left was not tried"
    application.delay = 0.0
    assert send_due(database, application.receiver, connections.now, 100).delivered == 8


def test_what_nobody_waited_for_is_not_sent_when_callbacks_are_switched_on(
    connections: Connections, application: Application
) -> None:
    serve(connections.database, add_model(connections.database), 1)
    later = Clock()
    later.advance(days=4)
    assert send_due(connections.database, application.receiver, later, 10) == CallbackRound()
    assert application.taken == []


def test_the_sensor_fails_where_nothing_is_taken(connections: Connections, application: Application) -> None:
    connections.settings.callback_url = application.url
    connections.settings.callback_secret = SecretStr(SECRET)
    serve(connections.database, add_model(connections.database), 1)
    application.status = 500
    with pytest.raises(CallbacksFail, match="answered 500"):
        send_callbacks(connections)
    assert build_callback_sensors(connections.settings)
    assert build_callback_sensors(Settings()) == []


def test_while_only_observing_nobody_is_told(connections: Connections, application: Application) -> None:
    connections.settings.callback_url = application.url
    connections.settings.callback_secret = SecretStr(SECRET)
    serve(connections.database, add_model(connections.database), 1)
    connections.settings.observe = True
    assert send_callbacks(connections) == CallbackRound()
    assert application.taken == []
    connections.settings.observe = False
    assert send_callbacks(connections).delivered == 1


@pytest.mark.parametrize("status", [200, 410])
def test_what_is_over_is_kept_for_a_month(
    connections: Connections, application: Application, status: int
) -> None:
    serve(connections.database, add_model(connections.database), 1)
    clock = Clock()
    application.status = status
    send_due(connections.database, application.receiver, clock, 10)
    for days, left in ((29, 1), (2, 0)):
        clock.advance(days=days)
        assert send_due(connections.database, application.receiver, clock, 10) == CallbackRound()
        assert len(rows(connections.database)) == left


def test_without_a_secret_nothing_is_sent_unsigned(connections: Connections) -> None:
    connections.settings.callback_url = "https://app.example/hooks"
    with pytest.raises(SettingsError, match="LORA_CALLBACK_SECRET"):
        send_callbacks(connections)


@given(st.integers(1, 20))
def test_each_attempt_waits_longer_than_the_one_before(attempt: int) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    again = after_attempt(attempt, now)
    if attempt > len(DELAYS):
        assert again is None
        return
    assert again is not None
    before = DELAYS[attempt - 2] if attempt > 1 else timedelta(0)
    assert again - now > before
