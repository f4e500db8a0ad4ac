"""What a measured budget looks like, and the table that shows them."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class BenchRow:
    """One budget: what was measured, against what, and whether it holds. Times and sizes are written with units."""

    what: str
    measured: str
    baseline: str
    ratio: float | None
    budget: str
    ok: bool
    note: str = ""


def print_rows(rows: Iterable[BenchRow]) -> None:
    table = Table(show_lines=True)
    for column in ("what", "measured", "baseline", "ratio", "budget", "", "note"):
        table.add_column(column, justify="right" if column == "ratio" else "left", overflow="fold")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        verdict = "[green]ok[/]" if row.ok else "[red]MISSED[/]"
        table.add_row(row.what, row.measured, row.baseline, ratio, row.budget, verdict, row.note)
    Console(width=None if Console().is_terminal else 160).print(table)
