"""What the selfie product's rows say of versions and weights, as versions of one model. Twice without effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.database.tables import ModelVersion, UserModel, VersionAlias
from lora_pipeline.inventory.entry_defects import Defect
from lora_pipeline.inventory.sselfie_tables import PROVIDER, Row, json_object
from lora_pipeline.inventory.sselfie_verdicts import JudgedModel, at

_LONGEST_WORD = 64
_OWN_VERSION = "no version is of its training; a version of its own, until its content tells whose it is"


class OtherOwner(Exception):
    """The row's version is another model's already; the message says whose."""


def load_version(
    session: Session,
    model: UserModel,
    judged: JudgedModel,
    runs: Sequence[Row],
    run_ids: Mapping[str, int],
    now: datetime,
) -> tuple[ModelVersion, bool] | None:
    """The version of a row and whether it is new; None where the row has none to trust. Raises OtherOwner."""
    if judged.version is None:
        return None
    qualified = judged.version.qualified
    known = session.scalars(
        select(ModelVersion).where(ModelVersion.provider_version == qualified)
    ).one_or_none()
    if known is not None:
        if known.model_id != model.id:
            owner = session.get_one(UserModel, known.model_id).model_key
            raise OtherOwner(
                f"its version is V{known.number} of {owner} already; a person decides whose it is"
            )
        if known.weights_url is None and judged.weights_url is not None:
            known.weights_url, known.updated_at = judged.weights_url, now
            known.provenance = {**known.provenance, "weights": f"user_models {judged.row_id}"}
        return known, False
    job = judged.training_id
    run: Row = next((row for row in runs if job and row.get("training_id") == job), {})
    run_id = run_ids.get(job or "")
    version = _add_version(
        session,
        model,
        now,
        provider_version=qualified,
        training_run_id=None if _has_version(session, run_id) else run_id,
        weights_url=judged.weights_url,
        trigger_word=judged.trigger_word or model.trigger_word,
        lora_scale=judged.lora_scale,
        parameters=json_object(run.get("parameters")),
        provenance=dict.fromkeys(
            ("provider_version", "weights", "parameters", "trained_at"), f"user_models {judged.row_id}"
        ),
        trained_at=judged.trained_at,
    )
    _name(session, version, "provider_version", qualified, now)
    if job:
        _name(session, version, "training_id", f"{PROVIDER}:{job}", now)
    return version, True


def load_weights(
    session: Session, model: UserModel, weights: Sequence[Row], runs: Sequence[Row], now: datetime
) -> tuple[int, int, list[Defect]]:
    """Where old rows say that weights lie: a name of the version of their training, else a version of its own.

    How many versions of their own are new and how many known, and what is wrong.
    """
    defects = []
    jobs = {str(row.get("id")): str(row.get("training_id") or "") for row in runs}
    new = own = 0
    for row in weights:
        bucket, key = row.get("s3_bucket"), row.get("s3_key")
        if not bucket or not key or row.get("status") == "deleted":
            continue
        address, source = f"s3://{bucket}/{key}", f"lora_weights {row.get('id')}"
        known = _known_as(session, "object", address)
        if known is not None:
            if known.model_id != model.id:
                owner = session.get_one(UserModel, known.model_id).model_key
                what = f"its object is V{known.number} of {owner} already; a person decides whose it is"
                defects.append(Defect(source, "other_model", what))
            elif known.provider_version is None:
                own += 1
                defects.append(Defect(source, "own_version", _OWN_VERSION))
            continue
        job = jobs.get(str(row.get("training_run_id")), "")
        version = _known_as(session, "training_id", f"{PROVIDER}:{job}") if job else None
        if version is None:
            new += 1
            defects.append(Defect(source, "own_version", _OWN_VERSION))
            version = _add_version(
                session,
                model,
                now,
                weights_url=address,
                trigger_word=str(row.get("trigger_word") or model.trigger_word)[:_LONGEST_WORD],
                provenance={"weights": source},
                trained_at=at(row.get("created_at")),
            )
        elif version.weights_url is None:
            version.weights_url = address
            version.provenance = {**version.provenance, "weights": source}
        _name(session, version, "object", address, now)
    return new, own, defects


def _has_version(session: Session, run_id: int | None) -> bool:
    query = select(ModelVersion.id).where(ModelVersion.training_run_id == run_id)
    return run_id is not None and session.scalars(query).first() is not None


def _add_version(session: Session, model: UserModel, now: datetime, **values: Any) -> ModelVersion:
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model.id))
    version = ModelVersion(
        model_id=model.id,
        number=(last or 0) + 1,
        provider=PROVIDER,
        weights_state="unverified",
        created_at=now,
        updated_at=now,
        **values,
    )
    session.add(version)
    session.flush()
    return version


def _name(session: Session, version: ModelVersion, kind: str, alias: str, now: datetime) -> None:
    query = select(VersionAlias.id).where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    if session.scalars(query).first() is None:
        session.add(VersionAlias(kind=kind, alias=alias, version_id=version.id, created_at=now))
        session.flush()


def _known_as(session: Session, kind: str, alias: str) -> ModelVersion | None:
    return session.scalars(
        select(ModelVersion)
        .join(VersionAlias, VersionAlias.version_id == ModelVersion.id)
        .where(VersionAlias.kind == kind, VersionAlias.alias == alias)
    ).first()
