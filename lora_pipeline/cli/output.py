"""How results are shown: tables for people, JSON for programs, colours on a terminal only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

# What steers a terminal, and half a surrogate pair, which no output takes: names of files and old ids may hold both.
_UNSHOWABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

_ANY_WIDTH = 100_000


def json_option(command: Command) -> Command:
    """`--json` for a command that shows something."""
    return click.option("--json", "as_json", is_flag=True, help="Show JSON instead of a table.")(command)


def console(*, stderr: bool = False) -> Console:
    """The terminal, or where the output goes instead."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def show_json(value: Any) -> None:
    """A result as JSON on standard output."""
    from lora_pipeline.inventory.json_text import with_half_pairs_escaped

    click.echo(with_half_pairs_escaped(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def counted(count: int, one: str, many: str = "") -> str:
    """`1 entry`, `2 entries`: the number with its word."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def show_table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, title: str | None = None, empty: str = ""
) -> None:
    """Rows as a table with these columns; `empty` is said where there are none."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not cells and empty:
        click.echo(empty)
    elif sys.stdout.isatty():
        _print_for_terminal(cells, columns, title)
    else:
        _print_plain(cells, columns, title)


def _print_for_terminal(cells: Sequence[Sequence[str]], columns: Sequence[str], title: str | None) -> None:
    """As wide as the terminal; where a word would not fit whole, one value a line: ids are there to be copied."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    terminal = console()
    headings = [Column(heading, overflow="fold") for heading in _headings(columns)]
    table = Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for row in cells:
        # Text, not markup: a file may be called [red].jpg.
        table.add_row(*(Text(cell) for cell in row))
    unbroken = terminal.measure(table, options=terminal.options.update(max_width=_ANY_WIDTH))
    if unbroken.minimum <= terminal.width or len(columns) <= 2:
        terminal.print(table)
        return
    if title:
        click.echo(title)
    for row in cells:
        click.echo()
        record = Table.grid(Column(style="bold"), Column(overflow="fold"), padding=(0, 2))
        for heading, cell in zip(_headings(columns), row, strict=True):
            if cell:
                record.add_row(heading, Text(cell))
        terminal.print(record)
    click.echo()


def _print_plain(cells: Sequence[Sequence[str]], columns: Sequence[str], title: str | None) -> None:
    """For files and pipes: one line a row however long, so that grep and awk work."""
    lines = [_headings(columns), *([cell.replace("\n", " ") for cell in row] for row in cells)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    if title:
        click.echo(title)
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _headings(columns: Sequence[str]) -> list[str]:
    return [column.replace("_", " ") for column in columns]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return _UNSHOWABLE.sub(lambda found: repr(found[0])[1:-1], str(value))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)
