"""Why a model serves what it serves: registry, provider and bucket side by side, with the verdict and what to do.

The troubleshooting guide as one question. Asks the provider and the store; changes nothing that is served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Activation, Artifact, ModelVersion, TrainingRun, UserModel
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.objects.errors import ObjectNotFound, ObjectStoreError
from lora_pipeline.trainings.lifecycle import OPEN
from lora_pipeline.versions.asking import Seen
from lora_pipeline.versions.drift import Drift, ProviderView, Trouble, Verdict, Word, judge, never_trained
from lora_pipeline.versions.drift_advice import TITLES, advice, next_command
from lora_pipeline.versions.lookup import find_model
from lora_pipeline.versions.merged_away import still_stands
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.provider_survey import SurveyRules, survey
from lora_pipeline.versions.sightings import remember
from lora_pipeline.versions.sync_targets import SyncTarget, known_trainers, one_target

WAIT_S = 10.0


@dataclass(frozen=True)
class Why:
    """Everything on one screen; each part is plain JSON without anything personal."""

    model_key: str
    drift: Drift
    registry: dict[str, Any]
    provider: dict[str, Any]
    bucket: dict[str, Any]
    listed: bool = True
    """Whether its provider keeps a list of versions, so that a sync could find anything."""

    @property
    def advice(self) -> tuple[str, ...]:
        said = advice(self.drift.verdict, self.model_key)
        return said if self.listed else tuple(text for text in said if "lora-pipeline sync" not in text)

    @property
    def guide(self) -> str:
        """The heading of the troubleshooting guide that fits."""
        return TITLES[self.drift.word]

    @property
    def next_command(self) -> str | None:
        held = self.registry.get("openTraining")
        if held and held["state"] in ("held", "lost"):
            return f"lora-pipeline trainings show {held['run']}"
        if not self.listed and self.drift.verdict is Verdict.WEIGHTS_MISSING:
            return f"lora-pipeline versions {self.model_key}"
        if self.drift.verdict is Verdict.NEVER_TRAINED and self.registry["newest"] and not held:
            return f"lora-pipeline activate {self.model_key} {self.registry['newest']}"
        return next_command(self.drift.verdict, self.model_key)

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "model": self.model_key,
            "status": self.drift.word.value if self.drift.word else None,
            "verdict": self.drift.verdict.value,
            "detail": self.drift.detail,
            "registry": self.registry,
            "provider": self.provider,
            "bucket": self.bucket,
            "guide": self.guide,
            "advice": list(self.advice),
            "next": self.next_command,
        }


def why(connections: Connections, model: str, *, sleep: Callable[[float], object] = time.sleep) -> Why:
    """Look at one model from all three sides. Raises ModelNotFound; everything else is part of the answer."""
    with connections.database.read() as session:
        row = find_model(session, model)
        unlisted = _unlisted_provider(session, row.id)
        trainers = known_trainers(session, connections.settings.trainer)
        target = one_target(session, row.id, trainers, listed_only=unlisted is None)
        artifact = _artifact(session, row.id)
        registry = _registry(session, row, target)
    if unlisted is not None:
        bucket = _bucket(connections, target, artifact)
        facts = {"name": unlisted, "versions": "none: it keeps no list, what is served lies in the bucket"}
        return Why(row.model_key, _judge_bucket(registry, bucket), registry, facts, bucket, listed=False)
    trained = row.training_status == "completed" or row.replicate_version_id is not None
    seen = _look(connections, target, sleep) if target.model is not None and trained else None
    bucket = _bucket(connections, target, artifact)
    drift = (
        _verdict(connections, target, seen, bucket) if trained else never_trained(_untrained(row, registry))
    )
    return Why(row.model_key, drift, registry, _provider(connections, target, seen), bucket)


def _unlisted_provider(session: Session, model_id: int) -> str | None:
    """The provider of the active version, where that is one without a list of versions."""
    return session.scalar(
        select(ModelVersion.provider)
        .join(Activation, Activation.version_id == ModelVersion.id)
        .where(
            Activation.model_id == model_id,
            Activation.active_to.is_(None),
            ModelVersion.provider != "replicate",
        )
    )


def _judge_bucket(registry: dict[str, Any], bucket: dict[str, Any]) -> Drift:
    """The verdict where only the bucket can be compared with."""
    if bucket["problem"]:
        return Drift(Verdict.WEIGHTS_MISSING, bucket["problem"])
    if registry["number"] != registry["newest"]:
        chosen = "pinned" if registry["pinned"] else "chosen"
        return Drift(Verdict.PINNED, f"{registry['number']} is {chosen}; the newest is {registry['newest']}")
    return Drift(Verdict.UP_TO_DATE, f"{registry['number']} is its newest, and its weights are in the bucket")


def _look(connections: Connections, target: SyncTarget, sleep: Callable[[float], object]) -> Seen:
    found = survey(
        connections.replicate, [target], SurveyRules(deep=True), Patience(WAIT_S, sleep), connections.now
    )
    remember(connections.database, {target.model_id: target}, found.seen)
    return found.seen[target.model_id]


def _verdict(
    connections: Connections, target: SyncTarget, seen: Seen | None, bucket: dict[str, Any]
) -> Drift:
    drift = judge(target.served, seen.view if seen else ProviderView(), connections.now())
    if bucket["problem"] and drift.word is not Word.ERROR:
        return Drift(Verdict.WEIGHTS_MISSING, f"{bucket['problem']} ({drift.detail})")
    return drift


def _untrained(row: UserModel, registry: dict[str, Any]) -> str:
    if registry["newest"] and not registry["number"]:
        return f"it serves none of its versions; the newest is {registry['newest']}"
    cause = f": {row.failure_reason}" if row.failure_reason else ""
    return f"its training_status is {row.training_status}, not completed{cause}"


def _registry(session: Session, row: UserModel, target: SyncTarget) -> dict[str, Any]:
    current = session.execute(
        select(Activation, ModelVersion)
        .join(ModelVersion, ModelVersion.id == Activation.version_id)
        .where(Activation.model_id == row.id, Activation.active_to.is_(None))
    ).one_or_none()
    activation, version = (current[0], current[1]) if current else (None, None)
    count, newest = session.execute(
        select(func.count(), func.max(ModelVersion.number)).where(
            ModelVersion.model_id == row.id, still_stands()
        )
    ).one()
    return {
        "modelName": row.model_name,
        "trainingStatus": row.training_status,
        "modelId": target.model or _visible(row.replicate_model_id),
        "servedVersion": target.stored.canonical_version or _visible(row.replicate_version_id),
        "triggerWord": row.trigger_word,
        "loraScale": row.lora_scale,
        "number": f"V{version.number}" if version else None,
        "pinned": bool(activation and activation.pinned),
        "activeSince": activation.active_from.isoformat() if activation else None,
        "activatedBy": activation.actor if activation else None,
        "reason": activation.reason if activation else None,
        "versions": count,
        "newest": f"V{newest}" if newest else None,
        "rowDiffersFromHistory": bool(
            version and version.provider_version != target.stored.canonical_version
        ),
        "openTraining": _open_training(session, row.id),
    }


def _open_training(session: Session, model_id: int) -> dict[str, Any] | None:
    run = session.scalars(
        select(TrainingRun).where(TrainingRun.model_id == model_id, TrainingRun.state.in_(OPEN))
    ).one_or_none()
    if run is None:
        return None
    return {
        "run": run.id,
        "state": run.state,
        "progress": run.progress,
        "reason": run.hold_reason or run.error,
    }


def _artifact(session: Session, model_id: int) -> Artifact | None:
    return session.scalars(
        select(Artifact)
        .join(ModelVersion, ModelVersion.artifact_id == Artifact.id)
        .join(Activation, Activation.version_id == ModelVersion.id)
        .where(Activation.model_id == model_id, Activation.active_to.is_(None))
    ).one_or_none()


def _provider(connections: Connections, target: SyncTarget, seen: Seen | None) -> dict[str, Any]:
    if seen is None:
        problem = target.stored.model_problem or "it was never trained: there is nothing to ask for"
        return {"modelId": target.model, "problem": problem, "latestVersion": None, "newest": []}
    view = seen.view
    asked = view.trouble is not Trouble.PROVIDER_ERROR
    return {
        "modelId": target.model,
        "page": f"https://replicate.com/{target.model}",
        "problem": view.message or None,
        "latestVersion": view.latest,
        "latestAt": view.latest_at.isoformat() if view.latest_at else None,
        "totalVersionsOnReplicate": seen.total,
        "newest": [
            {"id": version, "created_at": at.isoformat() if at else None} for version, at in seen.newest
        ],
        "simulated": connections.replicate.simulated if asked else None,
    }


def _bucket(connections: Connections, target: SyncTarget, artifact: Artifact | None) -> dict[str, Any]:
    """What lies where the weights should: looked at, not read."""
    url = target.weights_url
    facts: dict[str, Any] = {
        "store": connections.store.root,
        "weights": target.weights_state,
        "sha256": artifact.file_sha256 if artifact else None,
        "address": None,
        "size": None,
        "problem": None,
    }
    if not url:
        return facts
    key = connections.store.key_of(url)
    if key is None:
        # The provider's address is not shown: whoever has it may download.
        return facts | {"address": f"not archived by us: at {urlsplit(url).hostname or without_secrets(url)}"}
    facts["address"] = connections.store.address(key)
    try:
        info = connections.store.head(key)
    except ObjectNotFound:
        return facts | {"problem": "its archived weights are gone from the store"}
    except ObjectStoreError as error:
        return facts | {"problem": f"the store could not be asked: {error}"}
    facts["size"] = info.size
    if artifact is not None and artifact.size != info.size:
        facts["problem"] = f"its archived weights have {info.size} bytes; {artifact.size} were verified"
    return facts


def _visible(text: str | None) -> str | None:
    return without_secrets(text)[:200] if text else text
