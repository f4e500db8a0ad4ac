"""`why MODEL`: registry, provider and bucket side by side, the verdict, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import json_option

if TYPE_CHECKING:
    from lora_pipeline.versions.why import Why

_COLOURS = {"Up to Date": "green", "Needs Sync": "yellow", "Error": "red"}
_SIDE_BY_SIDE = 120
"""Columns of a terminal."""


@click.command()
@click.argument("model")
@json_option
def why(model: str, as_json: bool) -> int:
    """Why MODEL (a model key, user id, e-mail or owner/name) serves what it serves, and what to do about it."""
    from lora_pipeline.cli.environment import connect
    from lora_pipeline.cli.output import show_json
    from lora_pipeline.cli.verdicts import exit_of
    from lora_pipeline.versions.why import why as ask

    answer = ask(connect(), model)
    if as_json:
        show_json(answer.as_json())
    else:
        _show(answer)
    return exit_of([answer.drift.verdict])


def _show(answer: Why) -> None:
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from lora_pipeline.cli.output import console

    screen = console()
    word = answer.drift.word.value if answer.drift.word else "Never Trained"
    colour = _COLOURS.get(word, "blue")
    title = Text.assemble(f"{answer.model_key}  ", (word, f"bold {colour}"), f"  {answer.drift.verdict}")
    screen.print(Panel(Text(answer.drift.detail), title=title, title_align="left", box=box.ROUNDED))
    sides = [
        Panel(_facts(facts), title=name, title_align="left", box=box.ROUNDED)
        for name, facts in (
            ("registry", answer.registry),
            ("provider", answer.provider),
            ("bucket", answer.bucket),
        )
    ]
    # Where ids and addresses do not fit beside each other, one below the other.
    rows = [sides] if screen.width >= _SIDE_BY_SIDE else [[side] for side in sides]
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in rows[0]:
        grid.add_column(ratio=1)
    for row in rows:
        grid.add_row(*row)
    screen.print(grid)
    screen.print(Text(answer.guide, style="bold"))
    for number, text in enumerate(answer.advice, 1):
        screen.print(Text(f"  {number}. {text}"))
    if answer.next_command:
        screen.print(Text.assemble("\nNext: ", (answer.next_command, "bold")))
    screen.print(Text(f"\nWhat it was made from: lora-pipeline lineage {answer.model_key}", style="dim"))


def _facts(facts: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value in (None, [], "", False):
            continue
        table.add_row(name, Text(_value(value)))
    return table


def _value(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, list):
        return "\n".join(f"{item['id'][:12]}… {str(item['created_at'] or '')[:16]}" for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
    return str(value)
