from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry


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
