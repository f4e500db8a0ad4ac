from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from lora_pipeline.database.migrate import (
    MIGRATIONS,
    SchemaOutdated,
    differences,
    head,
    require_current,
    upgrade,
)
from lora_pipeline.database.sessions import Database, database_url
from lora_pipeline.database.tables import AuditEntry, Image, User


def test_the_migrations_make_exactly_the_declared_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        assert differences(connection) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    assert upgrade(database) == head()
    require_current(database)


def test_an_empty_database_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    with pytest.raises(SchemaOutdated, match="lora-pipeline db upgrade"):
        require_current(empty)


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    moment = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    with database.begin() as session:
        session.add(AuditEntry(at=moment, actor="t", action="a", subject="s", details={"n": 1}))
    with database.read() as session:
        row = session.query(AuditEntry).one()
        assert row.at == moment
        assert row.at.tzinfo is UTC
        assert row.details == {"n": 1}


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="without a time zone"), database.begin() as session:
        session.add(AuditEntry(at=datetime(2026, 1, 1), actor="t", action="a", subject="s"))  # noqa: DTZ001


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgres_spelling_means_psycopg_3(scheme: str) -> None:
    assert database_url(f"{scheme}://u:p@h/n").drivername == "postgresql+psycopg"


def test_a_url_without_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="expected sqlite:///"):
        database_url("lora.sqlite3")


def test_the_newest_migration_can_be_taken_back_and_made_again(database: Database) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    with database.begin() as session:
        session.add(User(id="42", created_at=moment, updated_at=moment))
        session.flush()
        session.add(
            Image(user_id="42", sha256="0" * 64, object_key="k", size=1, findings=[], created_at=moment)
        )
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    with pytest.raises(SchemaOutdated):
        require_current(database)
    assert upgrade(database) == head()
    with database.engine.connect() as connection:
        assert differences(connection) == []
    with database.read() as session:
        assert session.query(Image).one().user_id == "42"
