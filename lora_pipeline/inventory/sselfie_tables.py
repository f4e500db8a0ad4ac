"""The tables of the selfie product as they stand: read-only, whichever of the three generations they are.

The generations differ in ids (serial, UUID) and in columns that came later; rows are plain mappings here, and a
column that a generation does not have is simply not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from lora_pipeline.database.sessions import database_url

Row = Mapping[str, Any]
TABLES = ("users", "user_models", "training_runs", "lora_weights", "selfie_uploads")


class SourceRefused(Exception):
    """The address is not that of an older database; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class SelfieTables:
    """Every row of the older tables. Tables that are not there are empty."""

    users: Sequence[Row]
    user_models: Sequence[Row]
    training_runs: Sequence[Row]
    lora_weights: Sequence[Row]
    selfie_uploads: int
    """Only counted: the photographs lie elsewhere."""

    @property
    def generation(self) -> str:
        if any("lora_weights_url" in row for row in self.user_models):
            return "live"
        ids = [row.get("id") for row in self.user_models]
        return "serial ids" if all(isinstance(one, int) for one in ids) else "UUID ids"


def read_tables(url_text: str) -> SelfieTables:
    """Read all tables in one read-only transaction. SourceRefused where it is no such database."""
    url = database_url(url_text)
    engine = _read_only(url)
    try:
        with engine.connect() as connection:
            present = set(inspect(connection).get_table_names())
            if "user_models" not in present:
                raise SourceRefused(
                    f"{url.render_as_string(hide_password=True)} has no table user_models; it has "
                    f"{', '.join(sorted(present)[:10]) or 'no table'}. Expected the selfie product's database"
                )
            rows = {
                name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]  # noqa: S608 - fixed names
                for name in TABLES[:-1]
                if name in present
            }
            uploads = 0
            if "selfie_uploads" in present:
                uploads = connection.execute(text("SELECT count(*) FROM selfie_uploads")).scalar_one()
    finally:
        engine.dispose()
    return SelfieTables(
        users=rows.get("users", []),
        user_models=rows["user_models"],
        training_runs=rows.get("training_runs", []),
        lora_weights=rows.get("lora_weights", []),
        selfie_uploads=uploads,
    )


def _read_only(url: URL) -> Engine:
    backend = url.get_backend_name()
    if backend == "sqlite":
        path = Path(url.database or "").expanduser().absolute()
        if not path.is_file():
            raise SourceRefused(f"there is no file {path}. Expected sqlite:////path/to/database")
        return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=NullPool)
    options = {"options": "-c default_transaction_read_only=on"} if backend == "postgresql" else {}
    return create_engine(url, poolclass=NullPool, connect_args=options)
