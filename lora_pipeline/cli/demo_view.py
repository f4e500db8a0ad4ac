"""How the demo looks while it runs and at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from lora_pipeline.cli.output import console, show_table

if TYPE_CHECKING:
    from rich.table import Table

    from lora_pipeline.database.sessions import Database
    from lora_pipeline.demo.progress import ModelProgress
    from lora_pipeline.settings import RunningStack


class ProgressView(Protocol):
    """Shows how far the models are, each time it is told."""

    def __call__(self, progress: Sequence[ModelProgress], seconds: float) -> None: ...


@contextmanager
def progress_view() -> Iterator[ProgressView]:
    """A table that changes in place on a terminal; elsewhere a line whenever something changes."""
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=console(), refresh_per_second=4) as live:
        yield lambda progress, seconds: live.update(_live_table(progress, seconds))


class _Lines:
    """One plain line for each change of a model's stage, or ten per cent of its training."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[str, int]] = {}

    def __call__(self, progress: Sequence[ModelProgress], seconds: float) -> None:
        for model in progress:
            now = (model.stage, model.percent // 10)
            if self._said.get(model.model_key) != now:
                self._said[model.model_key] = now
                images = f", images {model.images}" if model.images else ""
                click.echo(f"{seconds:5.0f} s  {model.model_key}: {model.stage}, {model.percent} %{images}")


def _live_table(progress: Sequence[ModelProgress], seconds: float) -> Table:
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(
        "model",
        "images",
        "stage",
        "progress",
        "",
        box=box.SIMPLE_HEAD,
        title=f"SIMULATED trainings, {seconds:.0f} s",
        title_justify="left",
    )
    for model in progress:
        bar = ProgressBar(total=100, completed=model.percent, width=30)
        percent = f"{model.percent} %{' estimated' if model.estimated else ''}"
        table.add_row(model.model_key, model.images, model.stage, bar, percent)
    return table


def show_result(
    database: Database, progress: Sequence[ModelProgress], problem_model: str, running: RunningStack
) -> None:
    """The three tables of the end: what happened to each image, the versions, the addresses."""
    from lora_pipeline.demo.progress import image_outcomes

    for model in progress:
        if model.model_key == problem_model and model.image_set_id is not None:
            click.echo(f"\nWhat happened to each image of {problem_model}")
            outcomes = image_outcomes(database, model.image_set_id)
            show_table(outcomes, ["file", "size", "outcome", "in ZIP", "what happened"])
    click.echo(
        "\nThe registry. SIMULATED: nothing was trained and nothing was paid; the weights are placeholders."
    )
    show_table(
        [_row(model) for model in progress], ["model", "trigger", "version", "weights SHA-256", "seconds"]
    )
    click.echo(f"\nDagster UI      {running.dagster_url}")
    click.echo(f"Asset graph     {running.dagster_url}/asset-groups")
    for model in progress:
        if model.image_set_id is not None:
            click.echo(
                f"Contact sheet   {running.api_url}/contact-sheets/{model.image_set_id}.jpg  {model.model_key}"
            )


def _row(model: ModelProgress) -> dict[str, str]:
    served = model.served
    if served is None:
        return {"model": model.model_key, "trigger": model.trigger_word, "version": "none yet"}
    simulated = " SIMULATED" if served.simulated else ""
    return {
        "model": model.model_key,
        "trigger": model.trigger_word,
        "version": f"{served.version} {served.weights}{simulated}",
        "weights SHA-256": served.sha256[:16],
        "seconds": "" if served.seconds is None else f"{served.seconds:.0f}",
    }
