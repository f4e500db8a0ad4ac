"""Databases of the selfie product as they were met: three generations of the same tables, with their defects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import create_engine, text

from lora_pipeline.database.sessions import database_url

HASH = "a1" * 32
OTHER_HASH = "b2" * 32
TRAINER_HASH = "26dce37af90b9d997eeb970d92e47de3064d46c300504ae376c75bef6a9022d2"
MODEL = "sandra/42585527-selfie-lora"
WEIGHTS = "https://replicate.delivery/xezq/Rf3kQweFuZ0/flux-lora.tar"
JOB = "abcdefghijklmnopqrstuvwxy1"
THEN = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)

_COMMON = (
    "training_id TEXT, replicate_model_id TEXT, replicate_version_id TEXT, trained_model_path TEXT, "
    "trigger_word TEXT, training_status TEXT DEFAULT 'pending', model_name TEXT, training_progress INTEGER, "
    "failure_reason TEXT, started_at {time}, created_at {time}, updated_at {time}, completed_at {time}"
)
# Type of a row's id, of a user's id, and the columns that came later.
_GENERATIONS = {
    "serial ids": ("{serial}", "INTEGER", ""),
    "UUID ids": ("{uuid} PRIMARY KEY", "{uuid}", ", finetune_id TEXT, is_luxury BOOLEAN"),
    "live": ("{serial}", "TEXT", ", lora_weights_url TEXT, lora_scale {scale}, is_test BOOLEAN"),
}
# The types that each generation had in PostgreSQL; SQLite has few of its own.
_TYPES = {
    "postgresql": {
        "serial": "SERIAL PRIMARY KEY",
        "uuid": "UUID",
        "scale": "NUMERIC(3, 2)",
        "json": "JSONB",
        "time": "TIMESTAMP",
        "zoned": "TIMESTAMPTZ",
    },
    "sqlite": {
        "serial": "INTEGER PRIMARY KEY",
        "uuid": "TEXT",
        "scale": "TEXT",
        "json": "TEXT",
        "time": "TEXT",
        "zoned": "TEXT",
    },
}


def model_row(**changes: Any) -> dict[str, Any]:
    """A sound row of user_models, of the live generation."""
    return {
        "id": 1,
        "user_id": "42585527",
        "training_id": JOB,
        "replicate_model_id": MODEL,
        "replicate_version_id": f"{MODEL}:{HASH}",
        "lora_weights_url": WEIGHTS,
        "lora_scale": "1.0",
        "is_test": False,
        "trigger_word": "user42585527",
        "training_status": "completed",
        "model_name": "42585527-selfie-lora",
        "started_at": THEN,
        "created_at": THEN,
        "updated_at": THEN,
        "completed_at": THEN,
        **changes,
    }


def make_database(
    url: str,
    user_models: Sequence[dict[str, Any]],
    *,
    users: Sequence[dict[str, Any]] | None = None,
    runs: Sequence[dict[str, Any]] = (),
    weights: Sequence[dict[str, Any]] = (),
    generation: str = "live",
) -> str:
    """Create the tables and fill them; the database's URL."""
    engine = create_engine(database_url(url))
    types = _TYPES[engine.dialect.name]
    row_id, user_id, more = (part.format(**types) for part in _GENERATIONS[generation])
    if users is None:
        users = [
            {"id": one, "email": f"{one}@example.com"}
            for one in dict.fromkeys(row["user_id"] for row in user_models)
        ]
    columns = {
        "users": f"id {user_id} PRIMARY KEY, email TEXT",
        "user_models": f"id {row_id}, user_id {user_id}, {_COMMON.format(**types)}{more}",
        "training_runs": f"id TEXT, user_id {user_id}, training_id TEXT, status TEXT, base_model TEXT, "
        "parameters {json}, error TEXT, started_at {zoned}, created_at {zoned}, completed_at {zoned}".format(
            **types
        ),
        "lora_weights": f"id TEXT, user_id {user_id}, training_run_id TEXT, trigger_word TEXT, s3_bucket TEXT, "
        "s3_key TEXT, status TEXT, default_scales {json}, created_at {zoned}".format(**types),
        "selfie_uploads": f"id TEXT, user_id {user_id}, filename TEXT",
    }
    rows = {"users": users, "user_models": user_models, "training_runs": runs, "lora_weights": weights}
    with engine.begin() as connection:
        for name, definition in columns.items():
            connection.execute(text(f"CREATE TABLE {name} ({definition})"))
        for name, values in rows.items():
            for row in values:
                present = [column for column in row if f"{column} " in columns[name]]
                statement = f"INSERT INTO {name} ({', '.join(present)}) VALUES ({', '.join(f':{one}' for one in present)})"
                connection.execute(
                    text(statement), {one: _plain(row[one], engine.dialect.name) for one in present}
                )
    engine.dispose()
    return url


def _plain(value: Any, dialect: str) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None) if dialect == "postgresql" else f"{value:%Y-%m-%d %H:%M:%S}"
    return value
