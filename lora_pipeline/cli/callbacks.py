"""`callbacks`: what the application was told, what it has not taken, and sending that again."""

from __future__ import annotations

import click

from lora_pipeline.cli.listing_group import ListingGroup
from lora_pipeline.cli.output import json_option

_COLUMNS = ["event_id", "kind", "model", "state", "attempts", "next_attempt_at", "last_error"]


@click.group(cls=ListingGroup)
def callbacks() -> None:
    """Callbacks to the application: list (the default), send-again."""


@callbacks.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were taken.")
@click.option("--failing", is_flag=True, help="Only those that were tried in vain.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_command(everything: bool, failing: bool, limit: int, as_json: bool) -> None:
    """The newest callbacks that the application has not taken."""
    if everything and failing:
        raise click.UsageError("Give --all or --failing, not both.")
    from lora_pipeline.callbacks.listing import Which, list_callbacks
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table

    connections = connect()
    which: Which = "all" if everything else "failing" if failing else "undelivered"
    rows = list_callbacks(connections.database, which, limit=limit)
    if as_json:
        show_json(rows)
        return
    if connections.settings.callback_url is None:
        click.echo("LORA_CALLBACK_URL is not set: the application is told nothing.", err=True)
    show_table(
        [{**row, "model": row["payload"]["modelId"]} for row in rows],
        _COLUMNS,
        empty="no callback" if everything else "no callback is owed",
    )


@callbacks.command("send-again")
@click.argument("event_id")
def send_again_command(event_id: str) -> None:
    """Make the callback EVENT_ID due now, also one that was given up or taken."""
    from lora_pipeline.callbacks.sending import send_again
    from lora_pipeline.cli.environment import connect

    connections = connect()
    if not send_again(connections.database, event_id, connections.now()):
        raise click.UsageError(
            f"There is no callback {event_id!r}. See them: lora-pipeline callbacks list --all"
        )
    click.echo(f"{event_id} is due; Dagster's callback_sensor sends it within seconds.")
