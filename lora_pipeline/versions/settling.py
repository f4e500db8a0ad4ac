"""Settling: bring what models serve to what the provider has, version and weights together, without retraining.

One function settles one model or ten thousand. Deliberate choices are reported and left alone; a version whose
training is known is served at once with that training's own weights address, unverified until it was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ModelVersion, TrainingRun
from lora_pipeline.identity import VersionRef
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.versions.asking import Seen
from lora_pipeline.versions.drift import Drift, ProviderView, Verdict, judge
from lora_pipeline.versions.drift_advice import advice
from lora_pipeline.versions.formats import UNKNOWN
from lora_pipeline.versions.provider_survey import Survey
from lora_pipeline.versions.replacing import Replaced, Replacement, Replacer
from lora_pipeline.versions.sync_decisions import (
    LeftAlone,
    OwnRun,
    SyncOutcome,
    left_to_us,
    own_training,
    wanted_version,
)
from lora_pipeline.versions.sync_targets import SyncTarget
from lora_pipeline.versions.trainings_index import ListedTraining

CHUNK = 400
"""Models in one transaction: short enough that nobody waits for it, long enough to cost little each."""


@dataclass(frozen=True)
class SyncResult:
    """What a sync found and did about one model."""

    model_key: str
    outcome: SyncOutcome
    drift: Drift
    """How it stood before."""
    verdict: Verdict
    """How it stands now."""
    current: str | None
    """The version served now, `owner/name:hash` where it is understood, else as it is stored."""
    previous: str | None
    """The version served before, likewise."""
    latest: str | None
    """The provider's latest."""
    weights: str | None
    """`known` or `unknown` for the version of an update; None where nothing was to be updated."""
    detail: str
    number: int | None = None
    """Our number of the version, where an update registered or found it."""

    @property
    def update_needed(self) -> bool | None:
        """Whether something had to be changed; None where that could not be told."""
        if self.outcome in (SyncOutcome.UPDATED, SyncOutcome.PLANNED):
            return True
        return self.drift.needs_sync

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, nothing personal."""
        return {
            "model": self.model_key,
            "outcome": self.outcome.value,
            "updateNeeded": self.update_needed,
            "updated": self.outcome is SyncOutcome.UPDATED,
            "verdictBefore": self.drift.verdict.value,
            "verdict": self.verdict.value,
            "currentVersion": self.current,
            "previousVersion": self.previous,
            "latestVersion": self.latest,
            "weights": self.weights,
            "version": f"V{self.number}" if self.number else None,
            "detail": self.detail,
            "advice": list(advice(self.verdict, self.model_key)),
        }


@dataclass(frozen=True)
class Settling:
    """How a sync works."""

    actor: str
    apply: bool = True
    """False only plans."""
    go_on: Callable[[], bool] = lambda: True
    """Asked before each transaction: False (a lost lease) ends it there."""


def settle(
    connections: Connections, targets: Sequence[SyncTarget], survey: Survey, how: Settling
) -> Iterator[SyncResult]:
    """Sync each target from what was seen of it: a result each, in order, a transaction for every some hundred."""
    for start in range(0, len(targets), CHUNK):
        if not how.go_on():
            return
        yield from _settle_chunk(connections, targets[start : start + CHUNK], survey, how)


@dataclass(frozen=True)
class _Case:
    """One model as it was judged, and the version it should serve (or why that is not this sync's business)."""

    target: SyncTarget
    seen: Seen
    drift: Drift
    wanted: VersionRef | LeftAlone


@dataclass(frozen=True)
class _Registered:
    """The wanted version, where the registry has it."""

    weights_url: str | None
    weights_state: str


@dataclass(frozen=True)
class _Step:
    """What is to be done about a case."""

    do: Replacement | LeftAlone
    weights: str | None = None


def _settle_chunk(
    connections: Connections, targets: Sequence[SyncTarget], survey: Survey, how: Settling
) -> Iterator[SyncResult]:
    now = connections.now()
    cases = [_case(target, survey, now) for target in targets]
    wanted = {case.target.model_id: case.wanted for case in cases if isinstance(case.wanted, VersionRef)}
    runs: dict[int, list[OwnRun]] = {}
    registered: dict[str, _Registered] = {}
    if wanted:
        with connections.database.read() as session:
            runs = _own_runs(session, list(wanted))
            registered = _registered(session, {ref.qualified for ref in wanted.values()})
    steps = [_step(case, survey, runs.get(case.target.model_id, []), registered) for case in cases]
    replacements = [step.do for step in steps if isinstance(step.do, Replacement)]
    replaced: dict[int, Replaced] = {}
    if replacements and how.apply:
        simulated = connections.replicate.simulated
        with connections.database.begin() as session:
            replaced = Replacer(session, actor=how.actor, simulated=simulated, now=now).replace(replacements)
    for case, step in zip(cases, steps, strict=True):
        yield _result(case, step, replaced.get(case.target.model_id))


def _case(target: SyncTarget, survey: Survey, now: datetime) -> _Case:
    seen = survey.seen.get(target.model_id) or Seen(ProviderView(), now)
    drift = judge(target.served, seen.view, now)
    return _Case(target, seen, drift, wanted_version(target, drift, seen.view))


def _step(
    case: _Case, survey: Survey, runs: Sequence[OwnRun], registered: Mapping[str, _Registered]
) -> _Step:
    """Replace or leave alone; where the weights come from is settled here, and never guessed."""
    target, wanted = case.target, case.wanted
    if isinstance(wanted, LeftAlone):
        return _Step(wanted)
    listed = case.seen.listed
    if listed is None or listed.version != wanted.hash:
        listed = survey.index.made(str(target.model), wanted.hash)
    known = registered.get(wanted.qualified)
    has_weights = known is not None and known.weights_state != "missing" and bool(known.weights_url)
    run = own_training(runs, wanted, listed)
    if run is None and listed is None and not has_weights:
        listed = survey.index.find(str(target.model), wanted.hash, case.seen.view.latest_at)
        run = own_training(runs, wanted, listed)
    left = left_to_us(run, target.model_key) if run is not None else None
    if left is not None:
        return _Step(left)
    if has_weights:
        return _Step(_replacement(case, wanted, None, None), "known")
    if listed is None and survey.index.error is not None:
        detail = f"which training made {wanted} could not be told: {survey.index.error}"
        return _Step(LeftAlone(SyncOutcome.FAILED, detail))
    if listed is None or not listed.weights_url:
        return _without_weights(case, wanted)
    return _Step(_replacement(case, wanted, listed, listed.weights_url), "known")


def _without_weights(case: _Case, wanted: VersionRef) -> _Step:
    """The provider serves the version, so it is served; its weights stay unknown rather than belong to another."""
    version = case.target.stored.version
    if version is not None and version.hash == wanted.hash and case.drift.verdict is Verdict.WEIGHTS_MISSING:
        detail = f"{case.drift.detail}, and no training in the provider's list made {wanted}"
        return _Step(LeftAlone(SyncOutcome.FAILED, detail))
    return _Step(_replacement(case, wanted, None, None), UNKNOWN)


def _replacement(
    case: _Case, wanted: VersionRef, listed: ListedTraining | None, weights_url: str | None
) -> Replacement:
    made_at = listed.completed_at if listed is not None else None
    if made_at is None and wanted.hash == case.seen.view.latest:
        made_at = case.seen.view.latest_at
    return Replacement(
        case.target,
        wanted,
        weights_url,
        listed.training_id if listed is not None else None,
        made_at,
        f"sync: {case.drift.verdict.value}",
    )


def _result(case: _Case, step: _Step, replaced: Replaced | None) -> SyncResult:
    target, drift = case.target, case.drift
    before = target.stored.canonical_version or target.version
    latest = case.seen.view.latest
    outcome, verdict, current, detail = SyncOutcome.FAILED, drift.verdict, before, drift.detail
    if isinstance(step.do, LeftAlone):
        outcome, detail = step.do.outcome, step.do.detail
    elif replaced is None:
        outcome = SyncOutcome.PLANNED
    elif replaced.refused is not None:
        outcome, detail = SyncOutcome.CHANGED, replaced.refused
    else:
        outcome, current = SyncOutcome.UPDATED, step.do.version.qualified
        at_latest = step.do.version.hash == latest
        verdict = Verdict.UP_TO_DATE if at_latest else Verdict.PINNED
        verdict = Verdict.WEIGHTS_MISSING if step.weights == UNKNOWN else verdict
    return SyncResult(
        model_key=target.model_key,
        outcome=outcome,
        drift=drift,
        verdict=verdict,
        current=current,
        previous=before,
        latest=f"{target.model}:{latest}" if latest and target.model else latest,
        weights=step.weights,
        detail=detail,
        number=replaced.number if replaced else None,
    )


def _own_runs(session: Session, model_ids: Sequence[int]) -> dict[int, list[OwnRun]]:
    found: dict[int, list[OwnRun]] = {}
    rows = session.execute(
        select(
            TrainingRun.id,
            TrainingRun.model_id,
            TrainingRun.state,
            TrainingRun.training_id,
            TrainingRun.token,
            TrainingRun.provider_file_id,
            TrainingRun.output_version,
            TrainingRun.cancel_requested_at,
            TrainingRun.hold_reason,
            TrainingRun.error,
        ).where(TrainingRun.model_id.in_(model_ids), TrainingRun.provider == "replicate")
    )
    for row in rows:
        run = OwnRun(
            run_id=row.id,
            state=TrainingState(row.state),
            training_id=row.training_id,
            token=row.token,
            file_id=row.provider_file_id,
            output_version=row.output_version,
            cancel_requested=row.cancel_requested_at is not None,
            reason=row.hold_reason or row.error,
        )
        found.setdefault(row.model_id, []).append(run)
    return found


def _registered(session: Session, versions: set[str]) -> dict[str, _Registered]:
    rows = session.execute(
        select(ModelVersion.provider_version, ModelVersion.weights_url, ModelVersion.weights_state).where(
            ModelVersion.provider_version.in_(versions)
        )
    )
    return {str(row.provider_version): _Registered(row.weights_url, row.weights_state) for row in rows}
