"""The tables of the selfie product as they stand: read-only, whichever of the three generations they are.

The generations differ in ids (serial, UUID) and in columns that came later; rows are plain mappings here, and a
column that a generation does not have is simply not there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lora_pipeline.database.sessions import database_url, shown_url

Row = Mapping[str, Any]
PROVIDER = "replicate"
TABLES = ("users", "user_models", "training_runs", "lora_weights", "selfie_uploads")


_EXPECTED = (
    "Expected sqlite:////path/to/file or postgresql://user:password@host/name, other characters as %40"
)


class SourceRefused(Exception):
    """The address is not that of an older database; the message says what is missing."""


class SourceUnreachable(Exception):
    """The older database does not answer, or refuses to be read."""


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
    """Read all tables as they are at one moment, in a read-only transaction.

    SourceRefused where it is no such database, SourceUnreachable where it cannot be read. No error shows a password.
    """
    url = _parsed(url_text)
    engine = read_only_engine(url)
    try:
        with engine.connect() as connection:
            return _read(connection, shown_url(url))
    except DBAPIError as error:
        cause = next(iter(str(error.orig).strip().splitlines()), "no reason given")
        raise SourceUnreachable(f"the old database cannot be read: {cause}") from None
    finally:
        engine.dispose()


def _read(connection: Connection, shown: str) -> SelfieTables:
    present = set(inspect(connection).get_table_names())
    if "user_models" not in present:
        raise SourceRefused(
            f"{shown} has no table user_models; it has {', '.join(sorted(present)[:10]) or 'no table'}. "
            "Expected the selfie product's database"
        )
    if "model_versions" in present:
        # Ours has tables of the same names, and would be loaded into itself as a second set of models.
        raise SourceRefused(f"{shown} is a registry of this program. Expected the selfie product's database")
    rows = {
        name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]  # noqa: S608 - fixed names
        for name in TABLES[:-1]
        if name in present
    }
    uploads = 0
    if "selfie_uploads" in present:
        uploads = connection.execute(text("SELECT count(*) FROM selfie_uploads")).scalar_one()
    return SelfieTables(
        users=rows.get("users", []),
        user_models=rows["user_models"],
        training_runs=rows.get("training_runs", []),
        lora_weights=rows.get("lora_weights", []),
        selfie_uploads=uploads,
    )


def json_object(value: object) -> dict[str, Any]:
    """A JSON column as a driver gives it: read already, or as text. Empty where it is no object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, dict) else {}


def _parsed(text: str) -> URL:
    """The address, with nothing of it in the error: it may hold a password in the wrong place."""
    try:
        url = database_url(text)
    except ValueError:
        raise SourceRefused(f"the address cannot be read. {_EXPECTED}") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise SourceRefused(f"{url.get_backend_name()} is not read. {_EXPECTED}")
    return url


def read_only_engine(url: URL) -> Engine:
    """Connections that cannot write, and see one moment whatever is written meanwhile."""
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "").expanduser().absolute()
        if not path.is_file():
            raise SourceRefused(f"there is no file {path}. Expected sqlite:////path/to/database")
        options = "mode=ro&immutable=1" if _is_at_rest(path) else "mode=ro"
        # Not through an address of SQLAlchemy's, which would take % and # in the path for something else.
        source = f"file:{quote(str(path))}?{options}"
        return create_engine(
            "sqlite://",
            hide_parameters=True,
            creator=lambda: sqlite3.connect(source, uri=True),
            poolclass=NullPool,
        )
    # Not by a startup option, which pooled connections refuse.
    return create_engine(
        url,
        hide_parameters=True,
        poolclass=NullPool,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )


def _is_at_rest(path: Path) -> bool:
    """Whether this is a database in WAL mode that nobody has open: only then reading would leave files beside it."""
    with path.open("rb") as file:
        in_wal_mode = file.read(20)[18:] == b"\x02\x02"
    return in_wal_mode and not path.with_name(f"{path.name}-wal").exists()
