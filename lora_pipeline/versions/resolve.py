"""Resolve: the version, weights, trigger word and LoRA scale that an application is to use for a model now.

Answered from the database alone, in one short read. The first call for a model after a deployment also holds
it against the provider (`first_call`), within a budget and never instead of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.identity import VersionRef, parse_version
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.versions.drift import WORDS, Verdict, Word
from lora_pipeline.versions.first_call import Check, CheckRules, LastCheck, check_in_time, is_due
from lora_pipeline.versions.formats import KNOWN_TRAINERS
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.served import ServedLora
from lora_pipeline.versions.served_rows import ServedModel, read_named, read_served
from lora_pipeline.versions.version_lookup import versions_named

WEIGHTS_LIFE = timedelta(hours=1)
"""How long a signed weights address works: enough to fetch 170 MB over a slow line, too short to be worth keeping."""


class NothingServed(LookupError):
    """The model has no version that could be used; the message says what to do."""


@dataclass(frozen=True)
class ResolvedVersion:
    """What to generate with."""

    model_key: str
    version: int | None
    """Our number; None for a version that was never registered here."""
    provider_version: str | None
    """`owner/name:64hex`, as the client's `run` takes it; None for providers that keep no versions."""
    prediction_version: str | None
    """The bare hash, as `POST /v1/predictions` takes it."""
    weights_url: str | None = field(repr=False)
    """Signed where our store can sign: a bearer secret that ends at `weights_expire_at`. Never log or store it."""
    weights_expire_at: datetime | None
    weights_state: str
    """`verified`, `unverified` or `missing`."""
    trigger_word: str
    lora_scale: float
    pinned: bool
    simulated: bool
    stale: bool
    """True where this deployment has not been told by the provider that the version is the one to use:
    it is the last known good one."""
    checked_at: datetime | None
    """When the provider last answered for this model."""
    verdict: str | None
    """What it came to, in the vocabulary of the drift report."""
    problem: str | None = None
    """What is wrong with what is stored, where the answer had to do without it."""


def resolve(connections: Connections, model: str, version: str | None = None) -> ResolvedVersion:
    """The version to use for a model, given by key, user id, e-mail or provider name.

    With `version`, or with a version's own id instead of a model, that version, whatever the model serves.
    Raises ModelNotFound, VersionNotFound and NothingServed.
    """
    if version is None:
        try:
            return _resolve_served(connections, model)
        except ModelNotFound:
            with connections.database.glance() as session:
                if len(versions_named(session, model)) != 1:
                    raise
    return _resolve_exactly(connections, model, version)


def _resolve_served(connections: Connections, model: str) -> ResolvedVersion:

    def check(model_key: str) -> Verdict:
        from lora_pipeline.versions.sync import sync_model

        return sync_model(connections, model_key, actor="first resolve").verdict

    settings = connections.settings
    return resolve_version(
        connections.database,
        connections.store,
        model,
        CheckRules(settings.resolved_deployment_id),
        check=check,
        trainers=(*KNOWN_TRAINERS, parse_version(settings.trainer)),
        clock=connections.now,
    )


def resolve_version(
    database: Database,
    store: ObjectStore,
    model: str,
    rules: CheckRules,
    *,
    check: Check | None,
    trainers: Sequence[VersionRef] = KNOWN_TRAINERS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ResolvedVersion:
    """`resolve` with its parts given; without `check` nothing but the database is asked."""
    with database.glance() as session:
        seen = read_served(session, model, trainers)
    if check is not None and seen.comparable and is_due(seen.last_check, rules, clock()):
        check_in_time(database, seen.model_id, seen.model_key, check, rules, clock)
        with database.glance() as session:
            seen = read_served(session, seen.model_key, trainers)
    if seen.lora is None:
        verdict = f" ({seen.last_check.verdict})" if seen.last_check and seen.last_check.verdict else ""
        raise NothingServed(
            f"{seen.model_key} has no version to use yet{verdict}. "
            f"See why: lora-pipeline why {seen.model_key}"
        )
    stale = seen.comparable and not _confirmed(seen, rules)
    return _answer(store, seen.lora, seen.last_check, clock(), stale=stale)


def _resolve_exactly(connections: Connections, model: str, version: str | None) -> ResolvedVersion:
    """The version itself, as the registry has it: no provider is asked."""
    with connections.database.glance() as session:
        lora = read_named(session, model, version)
    return _answer(connections.store, lora, None, connections.now(), stale=False)


def _answer(
    store: ObjectStore, lora: ServedLora, last: LastCheck | None, now: datetime, *, stale: bool
) -> ResolvedVersion:
    url, expires = _signed(store, lora.weights_url, now)
    ref = lora.provider_version
    return ResolvedVersion(
        model_key=lora.model_key,
        version=lora.version,
        provider_version=str(ref) if ref is not None else None,
        prediction_version=ref.for_predictions if ref is not None else None,
        weights_url=url,
        weights_expire_at=expires,
        weights_state=lora.weights_state,
        trigger_word=lora.trigger_word,
        lora_scale=lora.lora_scale,
        pinned=lora.pinned,
        simulated=lora.simulated,
        stale=stale,
        checked_at=last.answered_at if last is not None else None,
        verdict=last.verdict if last is not None else None,
        problem=lora.problem,
    )


def _confirmed(seen: ServedModel, rules: CheckRules) -> bool:
    """Whether this deployment knows that the version is the one to use."""
    last = seen.last_check
    if last is None or last.answered_in != rules.deployment or last.answered_at is None:
        return False
    # What was verified, synced or chosen after the answer is newer than what the answer was about.
    if seen.active_since is not None and seen.active_since > last.answered_at:
        return True
    return last.verdict is not None and WORDS[Verdict(last.verdict)] is Word.UP_TO_DATE


def _signed(store: ObjectStore, address: str | None, now: datetime) -> tuple[str | None, datetime | None]:
    """Our own object as a URL that reads it for a while; any other address as it is."""
    key = store.key_of(address) if address is not None else None
    url = store.presign_get(key, WEIGHTS_LIFE) if key is not None else None
    return (url, now + WEIGHTS_LIFE) if url is not None else (address, None)
