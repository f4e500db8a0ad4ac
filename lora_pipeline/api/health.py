"""`/healthz`: whether this server can do its work."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lora_pipeline.api.problems import Problem
from lora_pipeline.connections import Connections
from lora_pipeline.database.migrate import SchemaOutdated


def health_router(connections: Connections) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """200 where the database answers and has the right schema, 503 with the reason otherwise."""
        try:
            with connections.database.read() as session:
                session.execute(text("SELECT 1"))
        except SchemaOutdated as error:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        except (SQLAlchemyError, OSError) as error:
            # The driver's words name hosts and users; whoever may read them reads the log.
            detail = f"the database does not answer ({type(error).__name__}). Check DATABASE_URL"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail) from error
        return {"status": "ok"}

    return router
