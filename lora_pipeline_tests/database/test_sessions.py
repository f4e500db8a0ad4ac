from __future__ import annotations

import traceback
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError

from lora_pipeline.database.sessions import Database, database_url, shown_url
from lora_pipeline.database.tables import AuditEntry, Control


def entry() -> AuditEntry:
    return AuditEntry(at=datetime.now(UTC), actor="t", action="a", subject="s")


def test_a_glance_sees_what_is_committed_and_leaves_transactions_as_they_were(database: Database) -> None:
    with database.begin() as session:
        session.add(entry())
    for _ in range(3):
        with database.glance() as session:
            assert session.query(AuditEntry).count() == 1
        # On the very connection that the glance gave back: an error must still undo everything.
        with pytest.raises(RuntimeError):
            write_and_fail(database)


def write_and_fail(database: Database) -> None:
    with database.begin() as session:
        session.add(entry())
        session.flush()
        raise RuntimeError


def test_an_error_of_the_database_quotes_no_values(database: Database) -> None:
    def write() -> None:
        with database.begin() as session:
            value = {"secret": "nobody-may-see-it"}
            session.add(Control(name="twice", value=value, changed_by="t", changed_at=datetime.now(UTC)))

    write()
    with pytest.raises(IntegrityError) as refused:
        write()
    assert "nobody-may-see-it" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "address",
    [
        "lora:s3cret@db/lora",
        "postgresql://lora:s3cret",
        "postgresql://lora:p@s3cret@db/lora",
        "postgresql://lora:p/@s3cret@db/lora",
        "postgresql://lora@db:s3cret/lora",
    ],
)
def test_an_address_that_cannot_be_one_is_not_quoted(address: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL") as refused:
        Database(address)
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "address", ["postgresql://u:s3cret@db/lora", "postgresql://db/lora?user=u&password=s3cret"]
)
def test_an_address_is_shown_without_its_password(address: str) -> None:
    assert "s3cret" not in shown_url(database_url(address))
    assert "db/lora" in shown_url(database_url(address))
