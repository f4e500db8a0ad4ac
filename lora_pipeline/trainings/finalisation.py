"""Finalisation: from the provider's success to a verified, archived, registered and served version.

Every step can be repeated: the archive's key is made of the file's hash, the version hangs on its run, and
registering, activating and finishing are one transaction. The gate is here, not in an asset check: nothing
that was not downloaded, verified and read back is ever served.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import Artifact, ImageSet, ModelVersion, TrainingRun, UserModel
from lora_pipeline.identity import IdentityError, VersionRef, parse_model, parse_version
from lora_pipeline.objects.errors import ObjectStoreError
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.providers.protocol import (
    ProviderError,
    ProviderUnavailable,
    TrainingProvider,
    Unauthenticated,
)
from lora_pipeline.trainings.cancelling import activate_unless_cancelled
from lora_pipeline.trainings.facts import training_facts
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.outbox import AssetEvent
from lora_pipeline.trainings.outputs import outputs_are_known, outputs_known
from lora_pipeline.trainings.transitions import move, owe_all
from lora_pipeline.versions.activation import Activated, open_activation
from lora_pipeline.versions.archiving import archive_weights
from lora_pipeline.versions.refusal import WeightsRefused
from lora_pipeline.versions.registry import ArchivedWeights, VersionTaken, register_version, version_facts

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
# Away, locked out, or no room on our own disk: the same for every training until that is over.
_OUTAGES = (ProviderUnavailable, Unauthenticated, ObjectStoreError, OSError)


class Finalisation(StrEnum):
    """How one attempt to finalise ended."""

    FINALISED = "finalised"
    INCOMPLETE = "incomplete"
    """The provider has not said yet where the version or its weights are: asked again at the next tick."""
    RETRY = "retry"
    """Something passing went wrong; the next batch tries again."""
    HELD = "held"
    TAKEN = "taken"


@dataclass(frozen=True)
class FinalisationResult:
    run_id: int
    model_key: str
    outcome: Finalisation
    reason: str | None = None
    version: int | None = None
    activated: Activated | None = None


@dataclass(frozen=True)
class FinalisationRules:
    """What the settings allow a finalisation."""

    cap_bytes: int
    lease: timedelta


def finalise_training(
    database: Database,
    store: ObjectStore,
    provider: TrainingProvider,
    run_id: int,
    rules: FinalisationRules,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    emit: bool = True,
) -> FinalisationResult:
    """Verify, archive, register and serve the version of one succeeded run; harmless to repeat.

    `emit=False` where the caller reports the materialisation itself.
    """
    lease = uuid.uuid4().hex
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id)
        model_key = session.get_one(UserModel, run.model_id).model_key
        if not _take(session, run_id, lease, rules, clock()):
            return FinalisationResult(run_id, model_key, Finalisation.TAKEN)
    try:
        version, url = _outputs(run)
        archived = _archive(store, provider, run, url, model_key, rules)
    except _Incomplete as error:
        return _release(database, run_id, model_key, Finalisation.INCOMPLETE, str(error), clock())
    except (IdentityError, WeightsRefused, ProviderError, ObjectStoreError, OSError) as error:
        return _trouble(database, run, model_key, error, clock())
    try:
        return _finish(database, run_id, version, archived, clock(), emit=emit)
    except VersionTaken as error:
        return _trouble(database, run, model_key, error, clock())


def finalisable(database: Database, now: datetime, limit: int) -> dict[int, str]:
    """Succeeded runs that nobody is working on and whose outputs are known, oldest first: run id → its provider."""
    with database.read() as session:
        rows = session.execute(
            select(TrainingRun.id, TrainingRun.provider)
            .where(
                TrainingRun.state == TrainingState.SUCCEEDED,
                outputs_known(),
                or_(TrainingRun.lease_until.is_(None), TrainingRun.lease_until <= now),
                or_(TrainingRun.not_before.is_(None), TrainingRun.not_before <= now),
            )
            .order_by(TrainingRun.succeeded_at)
            .limit(limit)
        )
        return {run_id: provider for run_id, provider in rows}  # noqa: C416 - a Row is no pair to the type checker


class _Incomplete(Exception):
    """The training succeeded without naming its version or its weights (yet)."""


def _take(session: Session, run_id: int, lease: str, rules: FinalisationRules, now: datetime) -> bool:
    return bool(
        changed_rows(
            session,
            update(TrainingRun)
            .where(
                TrainingRun.id == run_id,
                TrainingRun.state == TrainingState.SUCCEEDED,
                or_(TrainingRun.lease_until.is_(None), TrainingRun.lease_until <= now),
            )
            .values(lease_token=lease, lease_until=now + rules.lease),
        )
    )


def _outputs(run: TrainingRun) -> tuple[VersionRef | None, str]:
    """The trained version, canonical, if its provider keeps versions, and its weights' address.

    Another model's version is refused.
    """
    url = run.output_artifact_url
    if not url or not outputs_are_known(run.provider, run.output_version, url):
        raise _Incomplete("the provider has not named the version and its weights yet")
    if not run.output_version:
        return None, url
    return parse_version(run.output_version).of_model(parse_model(run.destination)), url


def _archive(
    store: ObjectStore,
    provider: TrainingProvider,
    run: TrainingRun,
    url: str,
    model_key: str,
    rules: FinalisationRules,
) -> ArchivedWeights:
    metadata = {"token": run.token, f"{run.provider}_job_id": run.training_id or ""}
    return archive_weights(store, provider.download(url), model_key, metadata, cap_bytes=rules.cap_bytes)


def _finish(
    database: Database,
    run_id: int,
    provider_version: VersionRef | None,
    archived: ArchivedWeights,
    now: datetime,
    *,
    emit: bool,
) -> FinalisationResult:
    with database.begin() as session:
        # The run first, as whoever observes it does: two orders of locking would wait for each other.
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        model = session.get_one(UserModel, run.model_id, with_for_update=True)
        if run.state != TrainingState.SUCCEEDED:
            return FinalisationResult(run_id, model.model_key, Finalisation.TAKEN)
        version = register_version(session, run, model, archived, provider_version, now)
        run.completed_at, run.progress, run.progress_estimated = now, 100, False
        run.lease_token = run.lease_until = run.not_before = run.error = None
        move(session, run, TrainingState.FINALISED, now, emit=False)
        activated = activate_unless_cancelled(session, run, model, version, now)
        if emit:
            owe_all(session, [trained_event(session, run, model, version)], now)
        return FinalisationResult(
            run_id, model.model_key, Finalisation.FINALISED, version=version.number, activated=activated
        )


def trained_event(session: Session, run: TrainingRun, model: UserModel, version: ModelVersion) -> AssetEvent:
    """The materialisation of `trained_lora` that a finalised run is worth."""
    artifact = session.get(Artifact, version.artifact_id) if version.artifact_id else None
    serving = open_activation(session, model.id)
    return AssetEvent(
        event_id=f"lora:{run.id}",
        asset_key="trained_lora",
        partition=model.model_key,
        kind="materialisation",
        facts={
            **training_facts(run),
            **version_facts(version, artifact),
            "image_set_digest": session.scalar(
                select(ImageSet.digest).where(ImageSet.id == run.image_set_id)
            ),
            "active": serving is not None and serving.version_id == version.id,
        },
    )


def _trouble(
    database: Database, run: TrainingRun, model_key: str, error: Exception, now: datetime
) -> FinalisationResult:
    """Try again later what may pass, a bounded number of times; the rest is held with its reason."""
    outage = isinstance(error, _OUTAGES)
    passing = isinstance(error, ProviderError) or (isinstance(error, WeightsRefused) and error.worth_retrying)
    with database.begin() as session:
        row = session.get_one(TrainingRun, run.id, with_for_update=True)
        if row.state != TrainingState.SUCCEEDED:
            return FinalisationResult(run.id, model_key, Finalisation.TAKEN)
        # It says nothing about these weights: it uses up no attempt, however long it lasts.
        row.finalise_attempts += 0 if outage else 1
        row.lease_token = row.lease_until = None
        row.error = f"not finalised: {error}"
        if outage or (passing and row.finalise_attempts < MAX_ATTEMPTS):
            row.not_before = now + timedelta(seconds=2.0 ** (row.finalise_attempts + 1))
            return FinalisationResult(run.id, model_key, Finalisation.RETRY, str(error))
        reason = (
            f"the training succeeded, but its weights were not accepted: {error}. "
            f"Decide with: lora-pipeline trainings resolve {run.id} --retry | --abandon"
        )
        move(session, row, TrainingState.HELD, now, reason=reason)
        return FinalisationResult(run.id, model_key, Finalisation.HELD, reason)


def _release(
    database: Database, run_id: int, model_key: str, outcome: Finalisation, reason: str, now: datetime
) -> FinalisationResult:
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        run.lease_token = run.lease_until = None
        run.updated_at = now
    return FinalisationResult(run_id, model_key, outcome, reason)
