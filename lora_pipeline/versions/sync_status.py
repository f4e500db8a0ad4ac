"""The sync status report: for each user the active completed model, what it serves, and what the provider has.

Only reads; what looking at the provider brought is remembered, so that totals can be told later with their date.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import User, UserModel
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.versions.asking import Seen
from lora_pipeline.versions.drift import Drift, ProviderView, Trouble, Verdict, Word, judge, short
from lora_pipeline.versions.drift_advice import NOBODY_LISTED, advice
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.provider_survey import Survey, SurveyRules, survey
from lora_pipeline.versions.registered_versions import registered_among
from lora_pipeline.versions.sightings import remember, view_of
from lora_pipeline.versions.sync_targets import SyncTarget, active_targets, known_trainers, targets_of

log = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a report waits for a throttling provider in all."""


@dataclass(frozen=True)
class ModelStatus:
    """One line of the report."""

    user_id: str
    email: str | None = field(repr=False)
    """For the administrator's eyes; never in logs or in Dagster."""
    model_key: str
    model: str | None
    """`owner/name` at the provider, or what stands there instead."""
    current_version: str | None
    """The hash served now, or what stands there instead."""
    latest_version: str | None
    drift: Drift
    updated_at: datetime
    completed_at: datetime | None
    total_versions: int | None
    """Over all pages; None where they were never counted."""
    counted_at: datetime | None
    all_versions: tuple[tuple[str, datetime | None], ...]
    """The five newest at the last count: hash and date."""
    seen_at: datetime | None
    """When the provider was looked at; None where it never was."""

    def as_json(self) -> dict[str, Any]:
        """In the words of the report."""
        word = self.drift.word
        return {
            "user": self.user_id,
            "email": self.email,
            "modelKey": self.model_key,
            "modelId": self.model,
            "status": word.value if word else None,
            "verdict": self.drift.verdict.value,
            "currentVersion": self.current_version,
            "latestVersion": self.latest_version,
            "needsSync": self.drift.needs_sync,
            "updated_at": _text(self.updated_at),
            "completed_at": _text(self.completed_at),
            "totalVersionsOnReplicate": self.total_versions,
            "countedAt": _text(self.counted_at),
            "allVersions": [{"id": version, "created_at": _text(at)} for version, at in self.all_versions],
            "detail": self.drift.detail,
            "error": self.drift.detail if word is Word.ERROR else None,
            "advice": list(advice(self.drift.verdict, self.model_key)),
        }


@dataclass(frozen=True)
class SyncReport:
    """How every user stands."""

    rows: tuple[ModelStatus, ...]
    checked_at: datetime
    simulated: bool | None
    """Whether a simulator answered; None where nobody was asked."""
    requests: int = 0
    hints: tuple[str, ...] = ()
    """What to look at where nobody is listed."""

    @property
    def total_users(self) -> int:
        """Users listed; the house is one, however many models it has."""
        return len({row.user_id for row in self.rows})

    @property
    def users_needing_sync(self) -> int:
        return len({row.user_id for row in self.rows if row.drift.needs_sync})

    def with_word(self, word: Word) -> tuple[ModelStatus, ...]:
        """The lines under one of the three words."""
        return tuple(row for row in self.rows if row.drift.word is word)

    def counts(self) -> dict[str, int]:
        """Lines by verdict."""
        return {
            verdict.value: count
            for verdict in Verdict
            if (count := sum(row.drift.verdict is verdict for row in self.rows))
        }

    def as_json(self) -> dict[str, Any]:
        """The whole report."""
        return {
            "totalUsers": self.total_users,
            "usersNeedingSync": self.users_needing_sync,
            "errors": len(self.with_word(Word.ERROR)),
            "upToDate": len(self.with_word(Word.UP_TO_DATE)),
            "models": len(self.rows),
            "verdicts": self.counts(),
            "checkedAt": _text(self.checked_at),
            "simulated": self.simulated,
            "requests": self.requests,
            "hints": list(self.hints),
            "users": [row.as_json() for row in self.rows],
        }


@dataclass(frozen=True)
class ReportOptions:
    """What a report is about."""

    user: str | None = None
    """One user (id or e-mail) or one model; everybody where None."""
    deep: bool = False
    """Ask for every model by itself and count its versions."""
    include_tests: bool = False
    remembered: bool = False
    """Ask nobody: judge by what was seen last."""


def sync_status(
    connections: Connections,
    options: ReportOptions | None = None,
    *,
    say: Callable[[str], object] = lambda _: None,
    sleep: Callable[[float], object] = time.sleep,
) -> SyncReport:
    """The report. Raises ModelNotFound for a user that is not there; the provider's trouble stands in the lines."""
    options = options or ReportOptions()
    targets = _targets(connections, options)
    now = connections.now()
    if options.remembered:
        rows = tuple(_status(target, None, now) for target in targets)
        report = SyncReport(rows, now, None, hints=_hints(connections, targets))
    else:
        found = _look(connections, targets, options, say, sleep)
        rows = tuple(_status(target, found.seen.get(target.model_id), now) for target in targets)
        simulated = connections.replicate.simulated if _answered(found) else None
        report = SyncReport(rows, now, simulated, found.requests, _hints(connections, targets))
    _log(report)
    return report


def recent_status(
    connections: Connections, max_age: timedelta, *, say: Callable[[str], object] = lambda _: None
) -> SyncReport:
    """The report from what was seen lately; the provider is asked only where that is older, or lacks somebody."""
    report = sync_status(connections, ReportOptions(remembered=True))
    oldest = connections.now() - max_age
    if all(row.model is None or (row.seen_at is not None and row.seen_at >= oldest) for row in report.rows):
        return report
    return sync_status(connections, say=say)


def _targets(connections: Connections, options: ReportOptions) -> list[SyncTarget]:
    with connections.database.read() as session:
        trainers = known_trainers(session, connections.settings.trainer)
        if options.user is not None:
            return targets_of(session, options.user, trainers)
        return active_targets(session, trainers, include_tests=options.include_tests)


def _look(
    connections: Connections,
    targets: Sequence[SyncTarget],
    options: ReportOptions,
    say: Callable[[str], object],
    sleep: Callable[[float], object],
) -> Survey:
    by_id = {target.model_id: target for target in targets}

    def keep(seen: Mapping[int, Seen]) -> None:
        remember(connections.database, by_id, seen)

    rules = SurveyRules(
        deep=options.deep or options.user is not None,
        registered=lambda versions: registered_among(connections.database, versions),
        say=say,
        on_seen=keep,
    )
    return survey(connections.replicate, targets, rules, Patience(WAIT_S, sleep), connections.now)


def _answered(found: Survey) -> bool:
    return any(seen.view.trouble is not Trouble.PROVIDER_ERROR for seen in found.seen.values())


def _status(target: SyncTarget, seen: Seen | None, now: datetime) -> ModelStatus:
    sighting = target.sighting if target.sighting and target.sighting.provider_model == target.model else None
    if seen is not None:
        view = seen.view
    elif sighting is not None:
        view = view_of(sighting)
    else:
        view = ProviderView(trouble=Trouble.PROVIDER_ERROR, message="the provider was not looked at yet")
    counted = seen if seen is not None and seen.total is not None else sighting
    stored = target.stored
    text = stored.version.hash if stored.version else target.version
    return ModelStatus(
        user_id=target.user_id,
        email=target.email,
        model_key=target.model_key,
        model=target.model or _visible(target.provider_model),
        current_version=text if stored.version else _visible(text),
        latest_version=view.latest,
        drift=judge(target.served, view, now),
        updated_at=target.updated_at,
        completed_at=target.completed_at,
        total_versions=counted.total if counted else None,
        counted_at=_counted_at(seen, target),
        all_versions=counted.newest if counted else (),
        seen_at=seen.seen_at if seen else (sighting.seen_at if sighting else None),
    )


def _counted_at(seen: Seen | None, target: SyncTarget) -> datetime | None:
    if seen is not None and seen.total is not None:
        return seen.seen_at
    sighting = target.sighting
    return sighting.counted_at if sighting and sighting.provider_model == target.model else None


def _hints(connections: Connections, targets: Sequence[SyncTarget]) -> tuple[str, ...]:
    if targets:
        return ()
    count = select(func.count())
    completed = UserModel.training_status == "completed"
    with connections.database.read() as session:
        users = session.scalar(count.select_from(User)) or 0
        models = session.scalar(count.select_from(UserModel)) or 0
        trained = session.scalar(count.select_from(UserModel).where(completed)) or 0
        unnamed = UserModel.replicate_model_id.is_(None)
        nulls = session.scalar(count.select_from(UserModel).where(completed, unnamed)) or 0
    found = (
        f"found {users} users with {models} models, {trained} of them completed, {nulls} of these without a "
        "replicate_model_id"
    )
    return (found, *NOBODY_LISTED)


def _log(report: SyncReport) -> None:
    """As an administrator looks for it: totals, then who and why. No e-mail."""
    log.info("Total users found: %d", report.total_users)
    log.info("Users needing sync: %d", report.users_needing_sync)
    for row in report.with_word(Word.NEEDS_SYNC):
        current, latest = short(row.current_version), short(row.latest_version)
        log.info(
            "User %s (%s) needs sync: current %s, latest %s", row.user_id, row.model_key, current, latest
        )
    for row in report.with_word(Word.ERROR):
        log.warning(
            "Error for user %s (%s): %s: %s", row.user_id, row.model_key, row.drift.verdict, row.drift.detail
        )


def _visible(text: str | None) -> str | None:
    """A stored text that was not understood: it could be anything, a secret too."""
    return without_secrets(text)[:200] if text else text


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
