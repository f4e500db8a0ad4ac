"""`api-keys`: who may use the HTTP interface."""

from __future__ import annotations

import click

from lora_pipeline.cli.output import json_option

_COLUMNS = ["name", "scope", "user", "created_by", "created_at", "revoked_at"]


@click.group("api-keys")
def api_keys() -> None:
    """Keys of the HTTP interface: create, list, revoke."""


@api_keys.command("create")
@click.argument("name")
@click.option("--user", "user_id", help="For this user's models only (a user id).")
@click.option("--admin", is_flag=True, help="For every model, and for the routes of administrators.")
@json_option
def create_command(name: str, user_id: str | None, admin: bool, as_json: bool) -> None:
    """Make a key called NAME and show it, once."""
    if admin == (user_id is not None):
        raise click.UsageError("Give either --user USER or --admin.")
    from lora_pipeline.access.keys import create_key
    from lora_pipeline.cli.environment import actor, connect
    from lora_pipeline.cli.output import show_json

    connections = connect()
    made = create_key(connections.database, name, user_id=user_id, actor=actor(), now=connections.now())
    if as_json:
        show_json({"name": made.name, "key": made.key, "user": user_id, "admin": admin})
        return
    click.echo(made.key)
    click.echo(
        "Send it as: Authorization: Bearer KEY. It is shown this once and kept only as a hash.", err=True
    )


@api_keys.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Every key that was made, without the keys themselves."""
    from lora_pipeline.access.keys import list_keys
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table

    rows = list_keys(connect().database)
    if as_json:
        show_json(rows)
        return
    shown = [
        {**row, "created_at": row["created_at"][:19], "revoked_at": (row["revoked_at"] or "")[:19]}
        for row in rows
    ]
    show_table(shown, _COLUMNS, empty="no key yet. Make one: lora-pipeline api-keys create NAME --user USER")


@api_keys.command("revoke")
@click.argument("name")
def revoke_command(name: str) -> None:
    """End the key called NAME at once."""
    from lora_pipeline.access.keys import revoke_key
    from lora_pipeline.cli.environment import actor, connect

    connections = connect()
    ended = revoke_key(connections.database, name, actor=actor(), now=connections.now())
    click.echo(f"{name} is revoked." if ended else f"{name} had been revoked before.")
