"""Drift as a rule: how the version a model serves relates to what the provider has, in one vocabulary everywhere.

Pure: no database, no provider, no clock. An error is never "up to date", and a deliberate choice is never drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lora_pipeline.versions.formats import StoredVersion, weights_problem

AHEAD_FOR = timedelta(hours=1)
"""How long a version whose training has succeeded may be missing from the provider's list before it counts as gone."""


class Word(StrEnum):
    """The three words a report shows."""

    UP_TO_DATE = "Up to Date"
    NEEDS_SYNC = "Needs Sync"
    ERROR = "Error"


class Verdict(StrEnum):
    """What is true of one model."""

    UP_TO_DATE = "up_to_date"
    PINNED = "pinned"
    """Behind on purpose."""
    AHEAD = "ahead"
    """Ours is not in the provider's list yet, and its training has just succeeded."""
    BEHIND = "behind"
    MISSING_VERSION = "missing_version"
    MALFORMED_VERSION = "malformed_version"
    TRAINER_VERSION = "trainer_version"
    MODEL_NOT_FOUND = "model_not_found"
    NO_VERSIONS = "no_versions"
    WEIGHTS_MISSING = "weights_missing"
    PROVIDER_ERROR = "provider_error"
    MALFORMED_MODEL_ID = "malformed_model_id"
    NEVER_TRAINED = "never_trained"
    """Listed nowhere: there is nothing to compare."""


WORDS: dict[Verdict, Word | None] = {
    Verdict.UP_TO_DATE: Word.UP_TO_DATE,
    Verdict.PINNED: Word.UP_TO_DATE,
    Verdict.AHEAD: Word.UP_TO_DATE,
    Verdict.BEHIND: Word.NEEDS_SYNC,
    Verdict.MISSING_VERSION: Word.NEEDS_SYNC,
    Verdict.MALFORMED_VERSION: Word.NEEDS_SYNC,
    Verdict.TRAINER_VERSION: Word.NEEDS_SYNC,
    Verdict.MODEL_NOT_FOUND: Word.ERROR,
    Verdict.NO_VERSIONS: Word.ERROR,
    Verdict.WEIGHTS_MISSING: Word.ERROR,
    Verdict.PROVIDER_ERROR: Word.ERROR,
    Verdict.MALFORMED_MODEL_ID: Word.ERROR,
    Verdict.NEVER_TRAINED: None,
}

REPAIRABLE = frozenset(
    {
        Verdict.BEHIND,
        Verdict.MISSING_VERSION,
        Verdict.MALFORMED_VERSION,
        Verdict.TRAINER_VERSION,
        Verdict.WEIGHTS_MISSING,
    }
)
"""What a sync may repair."""


class Trouble(StrEnum):
    """Why the provider's versions of a model could not be told."""

    MODEL_NOT_FOUND = "model_not_found"
    PROVIDER_ERROR = "provider_error"


@dataclass(frozen=True)
class ServedVersion:
    """What a model serves, as our own records say."""

    stored: StoredVersion
    weights_url: str | None
    weights_state: str | None = None
    """`unverified`, `verified` or `missing` as registered; None where the version is not registered."""
    pinned: bool = False
    succeeded_at: datetime | None = None
    """When the training that made it succeeded, as far as our registry knows."""


@dataclass(frozen=True)
class ProviderView:
    """What the provider has of one model, as far as it was looked at."""

    latest: str | None = None
    """Hash of the newest version; None where there is none, or `trouble` stands instead."""
    latest_at: datetime | None = None
    known: frozenset[str] | None = None
    """Hashes of all its versions; None where only the newest was looked for."""
    trouble: Trouble | None = None
    message: str = ""


@dataclass(frozen=True)
class Drift:
    """The verdict with its reason."""

    verdict: Verdict
    detail: str

    @property
    def word(self) -> Word | None:
        """The word shown; None where the model is not listed."""
        return WORDS[self.verdict]

    @property
    def needs_sync(self) -> bool | None:
        """None for an error: whether a sync is needed could not be told, which is not the same as no."""
        if self.word in (None, Word.ERROR):
            return None
        return self.word is Word.NEEDS_SYNC


def judge(served: ServedVersion, view: ProviderView, now: datetime) -> Drift:
    """The verdict of a model that has been trained: errors first, then what is stored, then what is newer."""
    return _error(served, view, now) or _stored(served, view) or _newer(served, view, now)


def never_trained(detail: str) -> Drift:
    """The verdict of a model without a completed training."""
    return Drift(Verdict.NEVER_TRAINED, detail)


def just_succeeded(served: ServedVersion, view: ProviderView, now: datetime) -> bool:
    """Whether the served version's training ended so recently, and so late, that the provider's list may lack it."""
    if served.succeeded_at is None or now - served.succeeded_at > AHEAD_FOR:
        return False
    return view.latest_at is None or served.succeeded_at > view.latest_at


def _error(served: ServedVersion, view: ProviderView, now: datetime) -> Drift | None:
    stored = served.stored
    if stored.model is None:
        return Drift(Verdict.MALFORMED_MODEL_ID, stored.model_problem or "replicate_model_id names no model")
    if view.trouble is not None:
        return Drift(Verdict(view.trouble), view.message)
    if view.latest is None and not (stored.canonical_version and just_succeeded(served, view, now)):
        return Drift(Verdict.NO_VERSIONS, f"{stored.model} exists at the provider and has no version")
    if stored.canonical_version is None:
        # Whose weights could be missing is not known before the version is.
        return None
    problem = weights_problem(served.weights_url, stored.version)
    if problem is None and served.weights_state == "missing":
        problem = "its weights are registered as missing"
    return Drift(Verdict.WEIGHTS_MISSING, problem) if problem else None


def _stored(served: ServedVersion, view: ProviderView) -> Drift | None:
    stored = served.stored
    latest = f"the provider's latest is {short(view.latest)}"
    if stored.version_problem is not None:
        return Drift(Verdict.MALFORMED_VERSION, f"{stored.version_problem} ({latest})")
    if stored.version is None:
        return Drift(Verdict.MISSING_VERSION, f"no version is stored; {latest}")
    if stored.is_trainer:
        detail = f"{short(stored.version.hash)} is a trainer's version, not a trained one; {latest}"
        return Drift(Verdict.TRAINER_VERSION, detail)
    return None


def _newer(served: ServedVersion, view: ProviderView, now: datetime) -> Drift:
    version = served.stored.version
    assert version is not None
    ours, latest = version.hash, view.latest
    if ours == latest:
        return Drift(Verdict.UP_TO_DATE, f"{short(ours)} is the provider's latest")
    if served.pinned:
        return Drift(Verdict.PINNED, f"{short(ours)} is pinned; the provider's latest is {short(latest)}")
    listed = view.known is not None and ours in view.known
    if not listed and just_succeeded(served, view, now):
        return Drift(
            Verdict.AHEAD, f"{short(ours)} has just been trained and is not in the provider's list yet"
        )
    gone = " and is no longer at the provider" if view.known is not None and not listed else ""
    return Drift(Verdict.BEHIND, f"{short(ours)} is served{gone}; the provider's latest is {short(latest)}")


def short(version_hash: str | None) -> str:
    """The first digits of a hash, for reading; never for storing or comparing."""
    return f"{version_hash[:12]}…" if version_hash else "none"
