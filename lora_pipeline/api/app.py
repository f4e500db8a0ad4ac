"""The application: its routes, its errors, its bounds, and whom it answers."""

from __future__ import annotations

from importlib import metadata

from fastapi import FastAPI

from lora_pipeline.api import (
    admin,
    downloads,
    health,
    images,
    lineage,
    metrics,
    models,
    pictures,
    reference,
    training,
    uploads,
)
from lora_pipeline.api.authentication import require_guarded
from lora_pipeline.api.bodies import BodyBounds
from lora_pipeline.api.description import describe_problems
from lora_pipeline.api.heads import HeadAsGet
from lora_pipeline.api.hosts import KnownHosts, allowed_hosts
from lora_pipeline.api.measuring import Measured
from lora_pipeline.api.problems import OperationErrors, answer_with_problems
from lora_pipeline.api.services import Services
from lora_pipeline.api.webhooks import webhooks_router
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline.trainings.webhooks import MAX_BODY_BYTES

_JSON_CAP = 1_000_000
_FORM_OVERHEAD = 100_000


def create_app(connections: Connections) -> FastAPI:
    """The HTTP interface over these connections. Connects at the first request.

    Raises SettingsError where it would answer everybody and be reachable by everybody.
    """
    settings = connections.settings
    require_guarded(settings)
    services = Services(connections)
    app = FastAPI(
        title="lora_pipeline",
        version=metadata.version("lora-pipeline"),
        description="Photos in, a verified and registered LoRA version out.",
        # FastAPI's own pages are loaded from other people's servers.
        docs_url=None,
        redoc_url=None,
        # A redirect would lead to http:// behind a proxy that ends TLS, and take the key there.
        redirect_slashes=False,
    )
    app.state.services = services
    for part in (uploads, training, models, images, downloads, pictures, lineage, admin, health, metrics):
        app.include_router(part.router)
    app.include_router(reference.router)
    app.include_router(webhooks_router(connections))
    answer_with_problems(app)
    describe_problems(app)
    # The last one added is the outermost.
    app.add_middleware(OperationErrors)
    app.add_middleware(BodyBounds, cap_of=lambda path: _cap_of(path, settings))
    app.add_middleware(KnownHosts, allowed=allowed_hosts(settings))
    app.add_middleware(Measured, counts=services.counts)
    app.add_middleware(HeadAsGet)
    return app


def _cap_of(path: str, settings: Settings) -> int:
    if path.startswith("/webhooks/"):
        return MAX_BODY_BYTES
    if path == "/api/training/upload":
        return settings.upload_cap_bytes + _FORM_OVERHEAD
    return _JSON_CAP
