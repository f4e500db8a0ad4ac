"""Models with registered versions, put into the database as finalisation would leave them."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Activation, ModelVersion, UserModel, VersionAlias
from lora_pipeline.versions.activation import activate_trained
from lora_pipeline_tests.fixtures.pipeline import add_model

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def version_hash(key: str, number: int) -> str:
    """The provider's hash of the version that `add_version` makes."""
    return sha256(f"{key} V{number}".encode()).hexdigest()


def provider_version(key: str, number: int) -> str:
    return f"acme/{key}-selfie-lora:{version_hash(key, number)}"


def job_id(key: str, number: int) -> str:
    """A Replicate training id: 26 lower-case letters and digits."""
    return f"{key.replace('-', '')}v{number}".ljust(26, "0")


def add_version(
    database: Database, key: str = "user-50c", number: int = 1, *, serve: bool = True, **fields: Any
) -> int:
    """Register version `number` of the model (made where it is new) and serve it; the version's id."""
    with database.read() as session:
        known = session.query(UserModel).filter_by(model_key=key).one_or_none()
    model_id = known.id if known is not None else add_model(database, key)
    now = fields.pop("now", NOW)
    with database.begin() as session:
        model = session.get_one(UserModel, model_id, with_for_update=True)
        values: dict[str, Any] = {
            "provider": "replicate",
            "provider_version": provider_version(key, number),
            "weights_url": f"s3://loras/{key}/{number}.safetensors",
            "weights_state": "verified",
            "trigger_word": model.trigger_word,
            "trained_at": now,
            "created_at": now,
            "updated_at": now,
        } | fields
        version = ModelVersion(model_id=model_id, number=number, **values)
        session.add(version)
        session.flush()
        names = [
            ("training_id", f"replicate:{job_id(key, number)}"),
            ("provider_version", version.provider_version),
            ("object", version.weights_url),
        ]
        session.add_all(
            VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=now)
            for kind, alias in names
            if alias is not None
        )
        if serve:
            activate_trained(session, model, version, now)
        return version.id


def served(database: Database, key: str = "user-50c") -> tuple[str | None, str | None]:
    """What `user_models` says is served: version and weights."""
    with database.read() as session:
        model = session.query(UserModel).filter_by(model_key=key).one()
        return model.replicate_version_id, model.lora_weights_url


def activations(database: Database, key: str = "user-50c") -> list[tuple[int, bool, bool]]:
    """(version number, pinned, still open) of every activation, oldest first."""
    with database.read() as session:
        rows = (
            session.query(Activation, ModelVersion.number)
            .join(ModelVersion, ModelVersion.id == Activation.version_id)
            .join(UserModel, UserModel.id == Activation.model_id)
            .where(UserModel.model_key == key)
            .order_by(Activation.id)
        )
        return [(number, row.pinned, row.active_to is None) for row, number in rows]
