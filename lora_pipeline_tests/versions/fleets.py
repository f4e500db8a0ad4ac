"""Models with stored versions, and what a simulated provider has of them: the raw material of sync tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, AuditEntry, ModelVersion, User, UserModel
from lora_pipeline.simulator.running import RunningSimulator

ACCOUNT = "acme"


def provider_model(key: str) -> str:
    return f"{ACCOUNT}/{key}-selfie-lora"


def train_at_provider(simulator: RunningSimulator, key: str, times: int = 1) -> list[dict[str, str]]:
    """Succeeded trainings of a model that this program knows nothing of, oldest first: training_id, version, weights."""
    destination = provider_model(key).partition("/")[2]
    made = []
    for _ in range(times):
        training = simulator.control("trainings", count=1, destination=destination)["trainings"][0]
        simulator.end(training["id"])
        made.append(training["id"])
        # Two trainings of one model never end in the same moment.
        simulator.advance(1)
    listed = {row["id"]: row for row in simulator.paid()["trainings"]}
    return [
        {"training_id": identity, "version": str(listed[identity]["trained_version"])} for identity in made
    ]


def train_many_at_provider(simulator: RunningSimulator, count: int, prefix: str = "m") -> dict[str, str]:
    """One succeeded training for each of `m0` … : key → version."""
    simulator.control("trainings", count=count, destination=prefix + "{n}-selfie-lora")
    simulator.control("trainings/end")
    listed = simulator.paid()["trainings"]
    found: dict[str, str] = {}
    for row in listed:
        key = str(row["destination"]).partition("/")[2].removesuffix("-selfie-lora")
        if row["trained_version"]:
            found[key] = str(row["trained_version"])
    return found


def push_versions(simulator: RunningSimulator, key: str, *hashes: str) -> None:
    """Versions of a model that come from no training, oldest first."""
    simulator.control("versions", models={provider_model(key): list(hashes)})


def add_served(database: Database, key: str, version: str | None, **fields: Any) -> int:
    """A user with one completed model whose row says this version, as an older application left it; the model's id."""
    now = datetime.now(UTC)
    user = {"id": fields.pop("user_id", key)} | {
        name: fields.pop(name) for name in ("email", "is_house") if name in fields
    }
    values: dict[str, Any] = {
        "model_name": key,
        "trigger_word": key.replace("-", "").replace("_", ""),
        "training_status": "completed",
        "training_progress": 100,
        "replicate_model_id": provider_model(key),
        "replicate_version_id": version,
        "lora_weights_url": f"https://replicate.delivery/xezq/{key}/trained_model.tar",
        "created_at": now - timedelta(days=30),
        "updated_at": now - timedelta(days=20),
        "completed_at": now - timedelta(days=20),
    } | fields
    with database.begin() as session:
        if session.get(User, user["id"]) is None:
            session.add(User(created_at=now, updated_at=now, **user))
            session.flush()
        model = UserModel(user_id=user["id"], model_key=key, **values)
        session.add(model)
        session.flush()
        return model.id


def row(connections: Connections, key: str) -> UserModel:
    with connections.database.read() as session:
        return session.query(UserModel).filter_by(model_key=key).one()


def versions(connections: Connections, key: str) -> list[ModelVersion]:
    with connections.database.read() as session:
        return list(
            session.query(ModelVersion)
            .join(UserModel, UserModel.id == ModelVersion.model_id)
            .filter(UserModel.model_key == key)
            .order_by(ModelVersion.number)
        )


def history(connections: Connections, key: str) -> list[Activation]:
    with connections.database.read() as session:
        return list(
            session.query(Activation)
            .join(UserModel, UserModel.id == Activation.model_id)
            .filter(UserModel.model_key == key)
            .order_by(Activation.id)
        )


def audit(connections: Connections, action: str) -> list[AuditEntry]:
    with connections.database.read() as session:
        return list(session.query(AuditEntry).filter_by(action=action).order_by(AuditEntry.id))


@contextmanager
def statements_on(connections: Connections) -> Iterator[list[str]]:
    """Every statement sent to the database inside, in order; one for many rows counts once."""
    sent: list[str] = []

    def hear(*arguments: Any) -> None:
        sent.append(arguments[2])

    engine = connections.database.engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", hear)
