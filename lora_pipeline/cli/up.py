"""`up`: the embedded stack, until it is told to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lora_pipeline.stack.embedded import EmbeddedStack

_PORT = click.IntRange(1, 65535)
_WATCH_S = 1.0


@click.command()
@click.option("--port", type=_PORT, help="Of Dagster's UI. Default: 3000, or a free one.")
@click.option("--api-port", type=_PORT, help="Of the HTTP server. Default: 8010, or a free one.")
@click.option("--simulator-port", type=_PORT, help="Of the simulated provider. Default: 8787, or a free one.")
@click.option(
    "--simulator-speed",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds of a simulated training's life in a second.",
)
def up(port: int | None, api_port: int | None, simulator_port: int | None, simulator_speed: float) -> None:
    """Start everything on this machine; Ctrl-C ends all of it.

    That is the database, the HTTP server, Dagster, and a simulated provider where REPLICATE_API_TOKEN is not set.
    """
    from lora_pipeline.settings import Settings
    from lora_pipeline.stack.embedded import EmbeddedStack, StackOptions

    ports = {"dagster": port, "api": api_port, "simulator": simulator_port}
    with stopping_politely():
        stack = EmbeddedStack(Settings(), StackOptions(ports, simulator_speed), say=click.echo)
        try:
            with stack:
                stack.wait_until_ready()
                for line in addresses(stack):
                    click.echo(line)
                click.echo("Ctrl-C ends it.")
                watch(stack)
        except KeyboardInterrupt:
            click.echo("Ended.")


def watch(stack: EmbeddedStack) -> None:
    """Until Ctrl-C, or until a part of the stack ends (StackError)."""
    while True:
        stack.check()
        time.sleep(_WATCH_S)


def addresses(stack: EmbeddedStack) -> list[str]:
    """Where a person finds what."""
    settings, running = stack.settings, stack.running
    if running.simulator_url:
        provider = f"{running.simulator_url} (SIMULATED: nothing is trained, nothing is paid)"
    elif settings.auto_submit:
        provider = f"{settings.replicate_base_url} (sensors start paid trainings: LORA_AUTO_SUBMIT is on)"
    else:
        provider = f"{settings.replicate_base_url} (trainings start by hand; LORA_AUTO_SUBMIT=1 lets sensors)"
    return [
        f"Dagster UI    {running.dagster_url}",
        f"Asset graph   {running.dagster_url}/asset-groups",
        f"HTTP          {running.api_url}",
        f"Provider      {provider}",
        f"Inbox         {settings.resolved_inbox}",
        f"Logs          {stack.logs}",
    ]


@contextmanager
def stopping_politely() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal all interrupt what stands inside, once; then ending is not disturbed.

    Also where SIGINT was ignored before, as in a script's background job.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
