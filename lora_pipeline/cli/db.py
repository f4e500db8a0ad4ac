"""`db`: the database's schema."""

from __future__ import annotations

import click


@click.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
def upgrade_command() -> None:
    """Bring the database to the schema that this program needs. Safe to repeat."""
    from lora_pipeline.database.migrate import upgrade
    from lora_pipeline.database.sessions import Database, shown_url
    from lora_pipeline.settings import Settings

    database = Database(Settings().resolved_database_url)
    try:
        revision = upgrade(database)
    finally:
        database.close()
    click.echo(f"{shown_url(database.url)} is at schema {revision}")
