"""Under which names this server answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from lora_pipeline.api.problems import problem_response
from lora_pipeline.settings import LOOPBACK, Settings


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """The names under which we may be reached; empty where any will do.

    On loopback, where some things need no key, its own and a proxy's: a page from elsewhere could otherwise give this
    machine's address a name of its own and read people's pictures through a visitor's browser. Elsewhere nothing is
    told without a key, and probes and scrapers ask by a number that nobody knows beforehand.
    """
    if settings.api_host not in LOOPBACK:
        return frozenset()
    return LOOPBACK | {urlsplit(settings.resolved_public_url).hostname or ""}


class KnownHosts:
    """ASGI middleware that refuses requests for other names."""

    def __init__(self, app: Any, allowed: frozenset[str]) -> None:
        self.app, self._allowed = app, allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._allowed and not _names(scope) <= self._allowed:
            detail = (
                "this server does not answer to the name in the Host header; LORA_PUBLIC_URL sets its name"
            )
            await problem_response(HTTPStatus.BAD_REQUEST, detail)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _names(scope: Any) -> set[str]:
    """Without their ports; two headers that differ must both be known."""
    values = [value for name, value in scope["headers"] if name == b"host"] or [b""]
    return {value.decode("latin-1").partition(":")[0].lower() for value in values}
