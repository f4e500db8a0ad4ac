"""`api` and `simulator`: the two servers by themselves. `up` starts both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lora_pipeline.cli.exits import Exit

_HOST_HELP = "Address to listen on; 127.0.0.1 is this machine alone."


@click.command()
@click.option("--host", help=f"{_HOST_HELP} Default: LORA_API_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: LORA_API_PORT, which is 8010 if unset.")
def api(host: str | None, port: int | None) -> None:
    """Serve the application's HTTP API, described at /docs. Stops with Ctrl-C."""
    import uvicorn

    from lora_pipeline.api.app import create_app
    from lora_pipeline.api.server import server_config
    from lora_pipeline.connections import Connections
    from lora_pipeline.settings import Settings

    given = {name: value for name, value in {"api_host": host, "api_port": port}.items() if value is not None}
    settings = Settings(**given)  # type: ignore[arg-type]
    config = server_config(create_app(Connections(settings)), host=settings.api_host, port=settings.api_port)
    click.echo(f"HTTP at http://{settings.api_host}:{settings.api_port}, described at /docs")
    with _failing_as_an_error():
        uvicorn.Server(config).run()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help=_HOST_HELP)
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for its trainings, models and files. Default: simulator/ in LORA_HOME.",
)
@click.option(
    "--speed", type=click.FloatRange(min=0), help="Seconds of a training's life in a second. Default: 1."
)
@click.option("--account", help="Name of the one account it has. Default: acme.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Any other setting of the simulator."
)
def simulator(
    host: str,
    port: int,
    state: Path | None,
    speed: float | None,
    account: str | None,
    changes: tuple[str, ...],
) -> None:
    """Serve a simulated Replicate and RunPod: nothing is trained or paid."""
    from lora_pipeline.cli.assignments import assignments
    from lora_pipeline.settings import Settings
    from lora_pipeline.simulator.server import serve
    from lora_pipeline.simulator.settings import SimulatorSettings

    values: dict[str, Any] = assignments(changes)
    given = {"state": state or Settings().home / "simulator", "speed": speed, "account": account}
    values.update({name: value for name, value in given.items() if value is not None})
    unknown = sorted(set(values) - set(SimulatorSettings.model_fields))
    if unknown:
        raise click.BadParameter(
            f"got {', '.join(unknown)}; the simulator has {', '.join(sorted(SimulatorSettings.model_fields))}",
            param_hint="--set",
        )
    settings = SimulatorSettings(**values)
    click.echo(
        f"simulated Replicate and RunPod at http://{host}:{port} (nothing is trained, nothing is paid)"
    )
    with _failing_as_an_error():
        serve(settings, host, port)


@contextmanager
def _failing_as_an_error() -> Iterator[None]:
    """Where it cannot listen uvicorn says why, and ends with the 3 that means drift here."""
    try:
        yield
    except SystemExit:
        raise SystemExit(Exit.ERROR) from None
