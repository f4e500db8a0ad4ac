"""`/healthz` and `/readyz`: whether this server can do its work."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lora_pipeline.api.answers import HealthAnswer
from lora_pipeline.api.problems import Problem
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.database.migrate import SchemaOutdated
from lora_pipeline.settings import SettingsError

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz(services: Shared) -> HealthAnswer:
    """200 where the database answers and has the right schema, 503 with the reason otherwise."""
    _ask_database(services)
    return HealthAnswer(status="ok")


@router.get("/readyz")
def readyz(services: Shared) -> HealthAnswer:
    """200 where requests can be served: the database answers, and the providers and the object store are set."""
    _ask_database(services)
    connections = services.connections
    try:
        for name in connections.settings.providers_in_use:
            connections.provider_named(name)
        _ = connections.store.root
    except SettingsError as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
    return HealthAnswer(status="ready")


def _ask_database(services: Services) -> None:
    try:
        with services.connections.database.read() as session:
            session.execute(text("SELECT 1"))
    except SchemaOutdated as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
    except (SQLAlchemyError, OSError) as error:
        # The driver's words name hosts and users; whoever may read them reads the log.
        detail = f"the database does not answer ({type(error).__name__}). Check DATABASE_URL"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail) from error
