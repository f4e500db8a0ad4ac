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
_GENERATIONS = {
    "serial ids": ("id INTEGER PRIMARY KEY, user_id INTEGER", ""),
    "UUID ids": ("id TEXT PRIMARY KEY, user_id TEXT", ", finetune_id TEXT, is_luxury BOOLEAN"),
    "live": (
        "id INTEGER PRIMARY KEY, user_id TEXT",
        ", lora_weights_url TEXT, lora_scale TEXT, is_test BOOLEAN",
    ),
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
    time = "TIMESTAMP" if engine.dialect.name == "postgresql" else "TEXT"
    ids, more = _GENERATIONS[generation]
    if users is None:
        users = [
            {"id": one, "email": f"{one}@example.com"}
            for one in dict.fromkeys(row["user_id"] for row in user_models)
        ]
    columns = {
        "users": "id TEXT PRIMARY KEY, email TEXT",
        "user_models": f"{ids}, {_COMMON.format(time=time)}{more}",
        "training_runs": "id TEXT, user_id TEXT, training_id TEXT, status TEXT, base_model TEXT, parameters TEXT, "
        f"error TEXT, started_at {time}, created_at {time}, completed_at {time}",
        "lora_weights": "id TEXT, user_id TEXT, training_run_id TEXT, trigger_word TEXT, s3_bucket TEXT, s3_key TEXT, "
        f"status TEXT, created_at {time}",
        "selfie_uploads": "id TEXT, user_id TEXT, filename TEXT",
    }
    rows = {"users": users, "user_models": user_models, "training_runs": runs, "lora_weights": weights}
    with engine.begin() as connection:
        for name, definition in columns.items():
            connection.execute(text(f"CREATE TABLE {name} ({definition})"))
        for name, values in rows.items():
            for row in values:
                present = [column for column in row if f"{column} " in columns[name]]
                statement = f"INSERT INTO {name} ({', '.join(present)}) VALUES ({', '.join(f':{one}' for one in present)})"
                connection.execute(text(statement), {one: _plain(row[one], time) for one in present})
    engine.dispose()
    return url


def _plain(value: Any, time: str) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None) if time == "TIMESTAMP" else f"{value:%Y-%m-%d %H:%M:%S}"
    return value
