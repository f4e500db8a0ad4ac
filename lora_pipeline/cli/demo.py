"""`demo`: photographs of three models to three verified versions, with the real daemon, and nothing to pay."""

from __future__ import annotations

import click


@click.command()
@click.option("--exit", "end", is_flag=True, help="End after the table instead of staying up.")
def demo(end: bool) -> int:
    """Photographs of three models to three versions, simulated."""
    raise click.ClickException("not there yet")
