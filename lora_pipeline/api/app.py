"""The application: its routes, its errors, and whom it answers."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lora_pipeline.api.contact_sheets import contact_sheets_router
from lora_pipeline.api.health import health_router
from lora_pipeline.api.problems import answer_with_problems
from lora_pipeline.api.webhooks import webhooks_router
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings

_LOOPBACK = frozenset({"127.0.0.1", "localhost"})


def create_app(connections: Connections) -> FastAPI:
    """The HTTP interface over these connections. Connects at the first request."""
    app = FastAPI(title="lora_pipeline", description="Photos in, a verified and registered LoRA version out.")
    answer_with_problems(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(connections.settings))
    for router in (
        health_router(connections),
        contact_sheets_router(connections),
        webhooks_router(connections),
    ):
        app.include_router(router)
    return app


def allowed_hosts(settings: Settings) -> list[str]:
    """The names under which browsers may reach us.

    On loopback only loopback's own: a page from elsewhere could otherwise give this machine's address a name
    of its own and read people's pictures through a visitor's browser. Elsewhere a proxy decides.
    """
    public = urlsplit(settings.resolved_public_url).hostname or ""
    if settings.api_host in _LOOPBACK:
        return sorted(_LOOPBACK | {public})
    return [public] if settings.public_url else ["*"]
