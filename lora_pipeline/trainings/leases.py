"""Named leases: one process at a time does a thing, and a dead one gives way by itself.

Nothing here asks whether a Dagster run is in progress: a run can be shown as started for ever. A lease ends
by its own clock, and whoever works longer renews it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from lora_pipeline.database.inserting import insert_unless_there
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Control


def take_lease(database: Database, name: str, duration: timedelta, now: datetime) -> str | None:
    """A token for the lease, or None while somebody else holds it."""
    token = uuid.uuid4().hex
    with database.begin() as session:
        unheld = {"name": _key(name), "value": {}, "changed_by": "", "changed_at": now}
        insert_unless_there(session, Control, ["name"], [unheld])
        row = session.get_one(Control, _key(name), with_for_update=True)
        if row.value and datetime.fromisoformat(row.value["until"]) > now:
            return None
        row.value = {"token": token, "until": (now + duration).isoformat()}
        row.changed_at = now
    return token


def renew_lease(database: Database, name: str, token: str, duration: timedelta, now: datetime) -> bool:
    """Keep a lease for longer. False where it ran out and somebody else took it: stop working."""
    with database.begin() as session:
        row = session.get(Control, _key(name), with_for_update=True)
        if row is None or row.value.get("token") != token:
            return False
        row.value = {"token": token, "until": (now + duration).isoformat()}
        row.changed_at = now
    return True


def give_lease_back(database: Database, name: str, token: str, now: datetime) -> None:
    """End a lease early; one that is no longer ours is left alone."""
    with database.begin() as session:
        row = session.get(Control, _key(name), with_for_update=True)
        if row is not None and row.value.get("token") == token:
            row.value, row.changed_at = {}, now


@contextmanager
def leased(
    database: Database, name: str, duration: timedelta, clock: Callable[[], datetime]
) -> Iterator[str | None]:
    """The lease's token for the length of the block; None while somebody else holds it."""
    token = take_lease(database, name, duration, clock())
    try:
        yield token
    finally:
        if token is not None:
            give_lease_back(database, name, token, clock())


def _key(name: str) -> str:
    return f"lease: {name}"
