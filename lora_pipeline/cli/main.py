"""Where the command line enters: the list of commands, loaded when asked for, and the way errors end."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from lora_pipeline.cli.exits import exit_code_of, message_of

COMMANDS = {
    "up": "lora_pipeline.cli.up:up",
    "demo": "lora_pipeline.cli.demo:demo",
    "doctor": "lora_pipeline.cli.doctor:doctor",
    "db": "lora_pipeline.cli.db:db",
    "upload": "lora_pipeline.cli.upload:upload",
    "train": "lora_pipeline.cli.train:train",
    "trainings": "lora_pipeline.cli.trainings:trainings",
    "why": "lora_pipeline.cli.why:why",
    "sync-status": "lora_pipeline.cli.sync_status:sync_status",
    "sync": "lora_pipeline.cli.sync:sync",
    "versions": "lora_pipeline.cli.versions:versions",
    "activate": "lora_pipeline.cli.choices:activate",
    "pin": "lora_pipeline.cli.choices:pin",
    "unpin": "lora_pipeline.cli.choices:unpin",
    "rollback": "lora_pipeline.cli.choices:rollback",
    "history": "lora_pipeline.cli.history:history",
    "resolve": "lora_pipeline.cli.resolve:resolve",
    "lineage": "lora_pipeline.cli.lineage:lineage",
    "inventory": "lora_pipeline.cli.inventory:inventory",
    "register": "lora_pipeline.cli.register:register",
    "dedupe": "lora_pipeline.cli.dedupe:dedupe",
    "import": "lora_pipeline.cli.importing:import_",
    "erase": "lora_pipeline.cli.erase:erase",
    "export": "lora_pipeline.cli.importing:export",
    "api": "lora_pipeline.cli.serve:api",
    "callbacks": "lora_pipeline.cli.callbacks:callbacks",
    "api-keys": "lora_pipeline.cli.api_keys:api_keys",
    "simulator": "lora_pipeline.cli.serve:simulator",
}
"""Name → where it is. A command's module imports click alone; what it needs is imported when it runs."""


class Commands(click.Group):
    """The commands of `COMMANDS`, in that order, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lora-pipeline")
def cli() -> None:
    """Photos in, a verified and registered LoRA version out.

    Everything lies in the folder that LORA_HOME names (.lora here, if unset). Exit codes: 0 fine, 1 error,
    2 wrong use, 3 drift found, 5 refused by a check, 6 provider trouble (try again).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. LORA_DEBUG=1 shows where an error came from."""
    try:
        code = cli.main(args=arguments, prog_name="lora-pipeline", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`); the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("LORA_DEBUG"):
            raise
        click.echo(f"Error: {message_of(error)}", err=True)
        sys.exit(exit_code_of(error))
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
