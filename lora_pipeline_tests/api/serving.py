"""A real server over given connections, and clients of it with keys."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import uvicorn
from fastapi import FastAPI

from lora_pipeline.access.keys import create_key
from lora_pipeline.api.app import create_app
from lora_pipeline.api.server import server_config
from lora_pipeline.connections import Connections


@contextmanager
def serving(connections: Connections, app: FastAPI | None = None) -> Iterator[httpx.Client]:
    """A client of a real server over these connections; the server's address is its own public one.

    `app` where the application over them was made before.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        connections.settings.api_port = port
        server = uvicorn.Server(server_config(app or create_app(connections)))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
        server.should_exit = True
        thread.join(10)


def key_for(connections: Connections, user_id: str | None, name: str | None = None) -> str:
    """A new key: this user's, or an administrator's."""
    made = create_key(
        connections.database, name or user_id or "admin", user_id=user_id, actor="test", now=datetime.now(UTC)
    )
    return made.key


def with_key(client: httpx.Client, key: str) -> httpx.Client:
    """Another client of the same server that sends this key."""
    return httpx.Client(
        base_url=client.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60, verify=False
    )
