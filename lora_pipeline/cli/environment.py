"""What commands need from outside, made when a command runs."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_pipeline.connections import Connections


def connect() -> Connections:
    """Connections as the environment's settings say."""
    from lora_pipeline.connections import Connections
    from lora_pipeline.settings import Settings

    return Connections(Settings())


def actor() -> str:
    """Who asks, for the audit log: the account at this machine, never an e-mail."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return "cli"
