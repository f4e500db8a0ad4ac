"""What a sync does about one model, as a rule: replace, leave alone, or leave to somebody else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lora_pipeline.identity import IdentityError, VersionRef, parse_version
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.versions.drift import REPAIRABLE, Drift, ProviderView, Verdict
from lora_pipeline.versions.sync_targets import SyncTarget
from lora_pipeline.versions.trainings_index import ListedTraining


class SyncOutcome(StrEnum):
    """How a sync of one model ended."""

    UP_TO_DATE = "up_to_date"
    """No update was needed."""
    UPDATED = "updated"
    PLANNED = "planned"
    """An update is needed, and this run only plans."""
    PINNED = "pinned"
    """Behind on purpose: left alone."""
    AHEAD = "ahead"
    """Newer than the provider's list: left alone."""
    FINALISING = "finalising"
    """Our own training made the latest version: finalisation verifies and serves it."""
    HELD = "held"
    """Our own training made it, and it was refused or given up: a person decides."""
    CHANGED = "changed_meanwhile"
    """Somebody else changed the model after it was read: nothing was overwritten."""
    FAILED = "failed"
    NEVER_TRAINED = "never_trained"


@dataclass(frozen=True)
class OwnRun:
    """One of our training runs of a model, as far as a sync needs it."""

    run_id: int
    state: TrainingState
    training_id: str | None
    token: str = field(repr=False)
    file_id: str | None = field(repr=False)
    output_version: str | None
    cancel_requested: bool
    reason: str | None
    """Why it is held, or how it failed."""


@dataclass(frozen=True)
class LeftAlone:
    """Why a sync does not touch a model."""

    outcome: SyncOutcome
    detail: str


_LEFT_ALONE = {
    Verdict.UP_TO_DATE: SyncOutcome.UP_TO_DATE,
    Verdict.PINNED: SyncOutcome.PINNED,
    Verdict.AHEAD: SyncOutcome.AHEAD,
    Verdict.NEVER_TRAINED: SyncOutcome.NEVER_TRAINED,
}


def wanted_version(target: SyncTarget, drift: Drift, view: ProviderView) -> VersionRef | LeftAlone:
    """The version that the model should serve after a sync: the latest, or the one a person pinned."""
    if drift.verdict not in REPAIRABLE:
        return LeftAlone(_LEFT_ALONE.get(drift.verdict, SyncOutcome.FAILED), drift.detail)
    assert target.stored.model is not None
    if target.pinned and target.activated is not None:
        return target.activated.of_model(target.stored.model)
    if view.latest is None:
        return LeftAlone(SyncOutcome.FAILED, drift.detail)
    return VersionRef(view.latest).of_model(target.stored.model)


def own_training(runs: Sequence[OwnRun], wanted: VersionRef, listed: ListedTraining | None) -> OwnRun | None:
    """Our own run that made the version: by what the provider said, by its job, or by the token it carries."""
    for run in runs:
        if _hash(run.output_version) == wanted.hash:
            return run
        if listed is not None and (
            run.training_id == listed.training_id or run.token in listed.marks or run.file_id in listed.marks
        ):
            return run
    return None


def left_to_us(run: OwnRun, model_key: str) -> LeftAlone | None:
    """Why a version of our own training is not a sync's to bring in; None where it is registered and may be served.

    Verify first, serve then: the exception for versions from elsewhere is not one for our own trainings.
    """
    if run.cancel_requested and run.state is TrainingState.FINALISED:
        return LeftAlone(
            SyncOutcome.HELD,
            f"training run {run.run_id} was to be cancelled and succeeded all the same; its version waits. "
            f"Serve it with: lora-pipeline activate {model_key} VERSION (see: lora-pipeline versions {model_key})",
        )
    if run.state is TrainingState.FINALISED:
        return None
    if run.state in OPEN and run.state is not TrainingState.HELD:
        return LeftAlone(
            SyncOutcome.FINALISING,
            f"training run {run.run_id} of ours made it; it is served once its weights are verified",
        )
    cause = f": {run.reason}" if run.reason else ""
    return LeftAlone(
        SyncOutcome.HELD,
        f"training run {run.run_id} of ours made it and is {run.state}{cause}. "
        f"See: lora-pipeline trainings show {run.run_id}",
    )


def _hash(text: str | None) -> str | None:
    try:
        return parse_version(text).hash if text else None
    except IdentityError:
        return None
