"""One active version a model, whoever writes at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, AuditEntry, ModelVersion, UserModel
from lora_pipeline.versions.activation import activate, activate_trained
from lora_pipeline.versions.pinning import Chooser, activate_version
from lora_pipeline_tests.versions.registered import NOW, activations, add_version, provider_version, served


def test_the_database_refuses_a_second_open_activation(database: Database) -> None:
    add_version(database, number=1)
    second = add_version(database, number=2, serve=False)
    with pytest.raises(IntegrityError), database.begin() as session:
        session.add(Activation(model_id=1, version_id=second, active_from=NOW, actor="t", reason="t"))


def test_writers_at_the_same_moment_leave_one_active_version_and_its_own_weights(
    database: Database, database_address: str
) -> None:
    for number in range(1, 7):
        add_version(database, number=number)
    others = [Database(database_address) for _ in range(6)]

    def choose(number: int) -> None:
        activate_version(others[number - 1], "user-50c", str(number), Chooser("t", "t", datetime.now(UTC)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(choose, range(1, 7)))
    for other in others:
        other.close()
    (active,) = [number for number, _, still_open in activations(database) if still_open]
    assert served(database) == (
        provider_version("user-50c", active),
        f"s3://loras/user-50c/{active}.safetensors",
    )


def test_serving_the_same_version_again_writes_no_history(database: Database) -> None:
    add_version(database, number=1)
    with database.begin() as session:
        model = session.get_one(UserModel, 1, with_for_update=True)
        version = session.query(ModelVersion).one()
        again = activate_trained(session, model, version, NOW + timedelta(hours=1))
    assert not again.changed
    assert activations(database) == [(1, False, True)]


def test_verifying_the_pinned_version_does_not_unpin_it(database: Database) -> None:
    add_version(database, number=1)
    with database.begin() as session:
        model = session.get_one(UserModel, 1, with_for_update=True)
        version = session.query(ModelVersion).one()
        activate(session, model, version, actor="t", reason="t", now=NOW, pinned=True)
        activate_trained(session, model, version, NOW + timedelta(hours=1))
    assert activations(database)[-1] == (1, True, True)


def test_a_clock_that_runs_behind_never_ends_an_activation_before_it_began(database: Database) -> None:
    add_version(database, number=1, now=NOW)
    add_version(database, number=2, now=NOW - timedelta(minutes=5))
    with database.read() as session:
        first, second = session.query(Activation).order_by(Activation.id)
    assert first.active_from == first.active_to == second.active_from == NOW


def test_who_and_why_are_in_the_audit_log(database: Database) -> None:
    add_version(database, number=1)
    add_version(database, number=2)
    activate_version(database, "user-50c", "1", Chooser("cli:ana", "V2 looks odd", NOW))
    with database.read() as session:
        entry = session.query(AuditEntry).order_by(AuditEntry.id.desc()).first()
    assert entry is not None
    assert (entry.actor, entry.action, entry.subject) == ("cli:ana", "activate", "user-50c")
    assert entry.details == {"version": 1, "reason": "V2 looks odd", "pinned": True}
