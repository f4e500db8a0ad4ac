"""`activate`, `pin`, `unpin` and `rollback`: which version a model serves, because a person decides. Each acts at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lora_pipeline.cli.output import Command, json_option

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections
    from lora_pipeline.versions.pinning import Choice, Chooser


def _reason_option(command: Command) -> Command:
    option: Callable[[Command], Command] = click.option(
        "--reason", default="no reason given", show_default=True, help="Kept in the history."
    )
    return option(command)


@click.command()
@click.argument("model")
@click.argument("version")
@_reason_option
@json_option
def activate(model: str, version: str, reason: str, as_json: bool) -> None:
    """Serve VERSION of MODEL from now on.

    VERSION is a number (3 or V3), the provider's version in any spelling, a training's id or the address of
    its weights. Anything but the newest is pinned.
    """
    from lora_pipeline.versions.pinning import activate_version

    connections = _connect()
    _show(activate_version(connections.database, model, version, _by(connections, reason)), as_json)


@click.command()
@click.argument("model")
@_reason_option
@json_option
def pin(model: str, reason: str, as_json: bool) -> None:
    """Keep the version that MODEL serves: no retrain and no sync replaces it until `unpin`."""
    from lora_pipeline.versions.pinning import pin_model

    connections = _connect()
    _show(pin_model(connections.database, model, _by(connections, reason)), as_json)


@click.command()
@click.argument("model")
@_reason_option
@json_option
def unpin(model: str, reason: str, as_json: bool) -> None:
    """Let the next retrain or sync of MODEL replace the version it serves again."""
    from lora_pipeline.versions.pinning import unpin_model

    connections = _connect()
    _show(unpin_model(connections.database, model, _by(connections, reason)), as_json)


@click.command()
@click.argument("model")
@click.option(
    "--from",
    "only_from",
    metavar="VERSION",
    help="Only if this is the version served; else nothing is changed.",
)
@_reason_option
@json_option
def rollback(model: str, only_from: str | None, reason: str, as_json: bool) -> None:
    """Serve the version that MODEL served before, and pin it. Repeated, it goes further back."""
    from lora_pipeline.versions.pinning import roll_back

    connections = _connect()
    choice = roll_back(connections.database, model, _by(connections, reason), only_from=only_from)
    _show(choice, as_json)


def _connect() -> Connections:
    from lora_pipeline.cli.environment import connect

    return connect()


def _by(connections: Connections, reason: str) -> Chooser:
    from lora_pipeline.cli.environment import actor
    from lora_pipeline.versions.pinning import Chooser

    return Chooser(actor(), reason, connections.now())


def _show(choice: Choice, as_json: bool) -> None:
    from lora_pipeline.cli.output import show_json

    if as_json:
        facts: dict[str, Any] = {
            **choice.__dict__,
            "model": choice.model_key,
            "version": f"V{choice.version}",
        }
        facts["previous"] = f"V{choice.previous}" if choice.previous is not None else None
        del facts["model_key"]
        show_json(facts)
        return
    before = f" It was V{choice.previous}." if choice.previous is not None else ""
    click.echo(f"{choice.model_key}: {choice.explanation}.{before}")
    for warning in choice.warnings:
        click.echo(f"{choice.model_key}: {warning}", err=True)
