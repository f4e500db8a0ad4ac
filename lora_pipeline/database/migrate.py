"""Bring a database to the current schema (`lora-pipeline db upgrade`), or say that it is not there yet."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import text
from sqlalchemy.engine import Connection

from lora_pipeline.database.sessions import Database, shown_url
from lora_pipeline.database.tables import Base

MIGRATIONS = Path(__file__).parent / "migrations"
# Any constant will do as long as every upgrader takes the same advisory lock.
_UPGRADE_LOCK = 7_205_111_402


class SchemaOutdated(Exception):
    """The database is not at the schema that this program was written for."""


def upgrade(database: Database) -> str:
    """Apply every missing migration, one upgrader at a time; the revision reached."""
    if database.dialect == "sqlite":
        path = database.url.database
        if path and path != ":memory:":
            with FileLock(f"{path}.upgrade.lock"):
                return _upgrade(database)
        return _upgrade(database)
    with database.engine.connect() as guard:
        guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _UPGRADE_LOCK})
        try:
            return _upgrade(database)
        finally:
            guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _UPGRADE_LOCK})


def require_current(database: Database) -> None:
    """Raise SchemaOutdated unless the database is at the newest revision."""
    with database.engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != head():
        standing = f"is at schema {found}" if found else "has none of our tables yet"
        raise SchemaOutdated(
            f"the database at {shown_url(database.url)} {standing}, this program needs "
            f"schema {head()}. Run: lora-pipeline db upgrade"
        )


def head() -> str:
    """The newest revision that this program knows."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert revision is not None
    return revision


def differences(connection: Connection) -> list[object]:
    """What autogenerate would still change: empty when migrations and tables agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


def _upgrade(database: Database) -> str:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head()
