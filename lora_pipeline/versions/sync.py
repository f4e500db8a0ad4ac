"""Sync one model: the latest version found, compared, and served with its own weights where an update was needed.

Idempotent: a second sync finds nothing to do. Many models at once are `bulk_sync`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.identity import IdentityError, ModelRef, parse_job_id, parse_model, parse_version
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.trainings.finalisation import Finalisation, finalise_training
from lora_pipeline.trainings.finishing import finalisation_rules
from lora_pipeline.trainings.lifecycle import FOLLOWED, OPEN
from lora_pipeline.trainings.looking import look_at_training
from lora_pipeline.trainings.transitions import observe
from lora_pipeline.versions.drift import Verdict, never_trained
from lora_pipeline.versions.formats import read_stored
from lora_pipeline.versions.lookup import find_model
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.provider_survey import SurveyRules, survey
from lora_pipeline.versions.registry_event import owe_registry
from lora_pipeline.versions.settling import Settling, SyncResult, settle
from lora_pipeline.versions.sightings import remember
from lora_pipeline.versions.sync_decisions import SyncOutcome
from lora_pipeline.versions.sync_targets import SyncTarget, known_trainers, one_target

WAIT_S = 20.0
"""What a person waits for a throttling provider; a longer wait is told instead."""


def sync_model(
    connections: Connections,
    model: str,
    *,
    actor: str,
    apply: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> SyncResult:
    """Hold one model (by its key, user, e-mail or provider name) against the provider and repair it.

    Without `apply`, and while observing, it only says what it would do. A deliberate choice is reported and left alone. A latest version that our own training made is verified and
    served here and now. Raises ModelNotFound; a provider that cannot be asked is the result's verdict.
    """
    apply = apply and not connections.database.observing
    target = _read(connections, model)
    if isinstance(target, SyncResult):
        return target
    if target.stored.model is None:
        target = _with_model(connections, target)
    patience = Patience(WAIT_S, sleep)
    found = survey(connections.replicate, [target], SurveyRules(), patience, connections.now)
    remember(connections.database, {target.model_id: target}, found.seen)
    (result,) = settle(connections, [target], found, Settling(actor, apply=apply))
    if result.outcome is SyncOutcome.FINALISING and apply:
        result = _finalise_now(connections, target, result)
    if result.outcome is SyncOutcome.UPDATED:
        owe_registry(connections, f"sync:{target.model_id}")
    return result


def _read(connections: Connections, text: str) -> SyncTarget | SyncResult:
    """The model, or the result where it was never trained."""
    with connections.database.read() as session:
        model = find_model(session, text)
        trained = model.training_status == "completed" or model.replicate_version_id is not None
        if trained:
            return one_target(session, model.id, known_trainers(session, connections.settings.trainer))
        drift = never_trained(f"{model.model_key} has no completed training (status {model.training_status})")
        return SyncResult(
            model_key=model.model_key,
            outcome=SyncOutcome.NEVER_TRAINED,
            drift=drift,
            verdict=drift.verdict,
            current=None,
            previous=None,
            latest=None,
            weights=None,
            detail=drift.detail,
        )


def _with_model(connections: Connections, target: SyncTarget) -> SyncTarget:
    """The target with the model that its version, our own trainings or its training at the provider name.

    Older applications stored a training's id where the model should stand.
    """
    model = _model_of_version(target.version) or _model_of_runs(connections, target.model_id)
    for text in (target.provider_model, target.training_id):
        model = model or _model_of_training(connections, text)
    if model is None:
        return target
    with connections.database.read() as session:
        trainers = known_trainers(session, connections.settings.trainer)
    return replace(target, stored=read_stored(str(model), target.version, trainers))


def _model_of_version(text: str | None) -> ModelRef | None:
    stored = read_stored(None, text)
    return stored.version.model if stored.version is not None and not stored.is_trainer else None


def _model_of_runs(connections: Connections, model_id: int) -> ModelRef | None:
    newest = select(TrainingRun.destination).where(TrainingRun.model_id == model_id)
    with connections.database.read() as session:
        text = session.scalar(newest.order_by(TrainingRun.id.desc()).limit(1))
    try:
        return parse_model(text) if text else None
    except IdentityError:
        return None


def _model_of_training(connections: Connections, text: str | None) -> ModelRef | None:
    try:
        job = parse_job_id(text or "")
        output = (
            connections.replicate.get_training(job.text).output_version
            if job.provider == "replicate"
            else None
        )
        return parse_version(output).model if output else None
    except (IdentityError, ProviderError):
        return None


def _finalise_now(connections: Connections, target: SyncTarget, result: SyncResult) -> SyncResult:
    """Do what the status sensor and the finalising batch would do about this model's own training."""
    with connections.database.read() as session:
        open_run = TrainingRun.state.in_(OPEN), TrainingRun.training_id.is_not(None)
        question = select(TrainingRun).where(TrainingRun.model_id == target.model_id, *open_run)
        run = session.scalars(question).one_or_none()
    if run is None:
        # Not adopted yet, or ended just now: the status sensor does it.
        return result
    provider = connections.provider_named(run.provider)
    try:
        if run.state in FOLLOWED:
            job = look_at_training(provider, str(run.training_id), run.token, run.destination)
            with connections.database.begin() as session:
                observe(session, {run.id: job}, connections.now())
        finished = finalise_training(
            connections.database,
            connections.store,
            provider,
            run.id,
            finalisation_rules(connections),
        )
    except ProviderError as error:
        return replace(result, detail=f"{result.detail} (not now: {error})")
    if finished.outcome is not Finalisation.FINALISED:
        return replace(
            result, detail=f"{result.detail} ({finished.outcome}: {finished.reason or 'another is at it'})"
        )
    with connections.database.read() as session:
        served = session.get_one(UserModel, target.model_id).replicate_version_id
    if served == target.version:
        return replace(
            result, outcome=SyncOutcome.HELD, detail=f"V{finished.version} is verified and not served"
        )
    return replace(
        result,
        outcome=SyncOutcome.UPDATED,
        verdict=Verdict.UP_TO_DATE,
        current=served,
        weights="known",
        number=finished.version,
        detail=f"training run {run.id} is verified and served",
    )
