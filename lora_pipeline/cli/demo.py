"""`demo`: photographs of three models to three verified versions, with the real daemon, and nothing to pay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_pipeline.cli.exits import Exit

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections
    from lora_pipeline.demo.progress import ModelProgress
    from lora_pipeline.stack.embedded import EmbeddedStack

TIMEOUT_S = 300.0
_LOOK_S = 0.5
_EVENTS_S = 30.0


class DemoStuck(Exception):
    """A model of the demo did not reach the registry; the message says where it hangs."""


@click.command()
@click.option("--exit", "end", is_flag=True, help="End after the table instead of staying up.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of Dagster's UI. Default: 3000, or a free one.")
def demo(end: bool, port: int | None) -> int:
    """Photographs of three models to three versions, simulated.

    Starts everything on this machine, drops the bundled photographs into the inbox, and lets Dagster's sensors do
    the work. Stays up until Ctrl-C. Started again on the same home it finishes what is open and repeats nothing.
    """
    from lora_pipeline.cli.up import stopping_politely, watch
    from lora_pipeline.connections import Connections
    from lora_pipeline.demo.settings import SIMULATOR_SPEED, demo_environment
    from lora_pipeline.settings import Settings
    from lora_pipeline.stack.embedded import EmbeddedStack, StackOptions

    environment = demo_environment(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    settings = Settings()
    options = StackOptions({"dagster": port}, SIMULATOR_SPEED)
    with stopping_politely():
        try:
            with EmbeddedStack(settings, options, say=click.echo) as stack:
                code = _run(stack, Connections(settings))
                if not end:
                    click.echo("\nEverything stays up. Ctrl-C ends it.")
                    watch(stack)
                return code
        except KeyboardInterrupt:
            click.echo("Ended.")
            return Exit.FINE if not end else 130


def _run(stack: EmbeddedStack, connections: Connections) -> Exit:
    from lora_pipeline.cli.demo_view import show_result
    from lora_pipeline.demo.inbox import drop_photographs
    from lora_pipeline.demo.shots import DEMO_MODELS, PROBLEM_MODEL

    inbox = Path(connections.settings.resolved_inbox)
    for model in DEMO_MODELS:
        new = drop_photographs(inbox, model)
        what = f"{len(model.shots)} photographs" if new else "photographs are there already"
        click.echo(f"{inbox / model.key}: {what} ({model.model_type})")
    progress = _follow(stack, connections, [model.key for model in DEMO_MODELS])
    show_result(connections.database, progress, PROBLEM_MODEL.key, stack.running)
    return Exit.FINE


def _follow(stack: EmbeddedStack, connections: Connections, keys: list[str]) -> list[ModelProgress]:
    """Show progress until every model is registered and Dagster has been told. DemoStuck where that does not come."""
    from lora_pipeline.cli.demo_view import progress_view
    from lora_pipeline.demo.progress import events_owed, models_progress

    began = time.monotonic()
    registered_at: float | None = None
    with progress_view() as show:
        while True:
            stack.check()
            progress = models_progress(connections.database, keys)
            seconds = time.monotonic() - began
            show(progress, seconds)
            _raise_if_stuck(progress, seconds, stack.logs)
            if stack.ready and all(model.done for model in progress):
                registered_at = registered_at or seconds
                # The registry is what counts; the UI shows it a tick later.
                if not events_owed(connections.database) or seconds - registered_at > _EVENTS_S:
                    return progress
            time.sleep(_LOOK_S)


def _raise_if_stuck(progress: list[ModelProgress], seconds: float, logs: Path) -> None:
    for model in progress:
        if model.trouble is not None:
            raise DemoStuck(
                f"{model.model_key} went no further than “{model.stage}”: {model.trouble}. "
                f"See: lora-pipeline trainings list --model {model.model_key}, and {logs / 'dagster.log'}"
            )
    if seconds > TIMEOUT_S:
        open_ones = ", ".join(f"{model.model_key} ({model.stage})" for model in progress if not model.done)
        raise DemoStuck(
            f"after {TIMEOUT_S:.0f} s still not registered: {open_ones}. See {logs / 'dagster.log'}"
        )
