"""`callbacks` on the command line: what is owed, what fails, and sending it again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from lora_pipeline.callbacks.owing import version_changed
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Callback, ModelVersion, UserModel
from lora_pipeline.settings import Settings
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.fixtures.pipeline import add_model


@pytest.fixture
def connections(run: Run) -> Connections:
    run("db", "upgrade")
    return Connections(Settings())


def owe(connections: Connections, **values: object) -> str:
    """A callback as it stands after some attempts; its event id."""
    database = connections.database
    model_id = add_model(database)
    now = datetime.now(UTC)
    version = ModelVersion(number=1, trigger_word="user50c", simulated=False)
    with database.begin() as session:
        facts = version_changed(session.get_one(UserModel, model_id), version, "a test", now)
        session.add(Callback(**{**facts, **values}))
    return str(facts["event_id"])


def test_what_fails_is_shown_with_the_reason_and_sent_again(run: Run, connections: Connections) -> None:
    assert "no callback is owed" in run("callbacks").out
    now = datetime.now(UTC)
    event_id = owe(connections, attempts=10, last_error="answered 500", given_up_at=now)
    shown = run("callbacks", "list", "--failing")
    assert "answered 500" in shown.out
    assert "given up" in shown.out
    assert "LORA_CALLBACK_URL is not set" in shown.err

    assert run("callbacks", "send-again", event_id).code == 0
    with connections.database.read() as session:
        row = session.scalars(select(Callback)).one()
    assert (row.given_up_at, row.attempts, row.next_attempt_at >= now) == (None, 0, True)
    assert run("callbacks", "list", "--failing", "--json").json == []
    assert run("callbacks", "list", "--json").json[0]["state"] == "owed"


def test_an_unknown_callback_and_contradicting_options_are_wrong_use(
    run: Run, connections: Connections
) -> None:
    assert run("callbacks", "send-again", "evt_none").code == 2
    assert run("callbacks", "list", "--all", "--failing").code == 2
