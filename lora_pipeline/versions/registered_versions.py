"""Which provider versions the registry has."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion

_CHUNK = 1_000


def registered_among(database: Database, versions: Sequence[str]) -> set[str]:
    """Those of these `owner/name:hash` that are registered, whether or not they are served."""
    found: set[str] = set()
    with database.read() as session:
        for start in range(0, len(versions), _CHUNK):
            some = versions[start : start + _CHUNK]
            known = select(ModelVersion.provider_version).where(ModelVersion.provider_version.in_(some))
            found.update(text for text in session.scalars(known) if text)
    return found
