"""`history MODEL`: which version was live when, by whom and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.versions.history import Served

_COLUMNS = ["version", "from", "to", "pinned", "by", "why", "provider_version"]


@click.command()
@click.argument("model")
@click.option(
    "--at",
    "when",
    metavar="TIME",
    help="What was live then: a day (2026-03-01, in UTC) or a moment (2026-03-01T12:30, UTC unless it says).",
)
@json_option
def history(model: str, when: str | None, as_json: bool) -> None:
    """Every version that MODEL has served, newest first."""
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json, show_table
    from lora_pipeline.versions.history import history_of, what_was_live
    from lora_pipeline.versions.lookup import find_model

    connections = connect()
    with connections.database.read() as session:
        found = find_model(session, model)
        if when is None:
            title, rows = f"{found.model_key}: served", history_of(session, found.id)
        else:
            period, rows = what_was_live(session, found.id, when, connections.now())
            title = f"{found.model_key}: live {'on' if period.end else 'at'} {period}"
    if as_json:
        show_json({"model": found.model_key, "at": when, "served": [_facts(row) for row in rows]})
        return
    show_table(
        [_shown(row) for row in rows],
        _COLUMNS,
        title=title,
        empty=f"{title}: nothing. See when it began: lora-pipeline history {found.model_key}"
        if when
        else f"{found.model_key} has served nothing yet. See its versions: lora-pipeline versions {found.model_key}",
    )


def _facts(row: Served) -> dict[str, Any]:
    return {
        "version": f"V{row.version}",
        "provider_version": row.provider_version,
        "from": row.active_from,
        "to": row.active_to,
        "by": row.actor,
        "why": row.reason,
        "pinned": row.pinned,
        "rolled_back": row.rolled_back,
    }


def _shown(row: Served) -> dict[str, Any]:
    owner, _, digits = (row.provider_version or "").partition(":")
    return {
        **_facts(row),
        "to": row.active_to or "now",
        "provider_version": f"{owner}:{digits[:12]}…" if digits else owner,
    }
