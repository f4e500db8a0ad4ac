"""A plan for versions of the registry that are one LoRA: read, decided field by field, and stored for review.

Only versions of one model are merged; the same LoRA under two models is for a person. Carrying a plan out is in
`registry_merging`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import MergePlan, UserModel
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.entries import was_renamed
from lora_pipeline.inventory.plan_store import PlanNotFound
from lora_pipeline.inventory.registry_versions import (
    THE_MODELS,
    KnownVersion,
    fingerprint,
    read_versions,
    with_content_of_their_place,
)
from lora_pipeline.inventory.reviews import keep_reviews
from lora_pipeline.inventory.tree_plan import shown_value
from lora_pipeline.inventory.unifying import Place, StrongIds, unify

REGISTRY = "registry"
REVIEW_KIND = "duplicate"
_MODELS_A_READ = 500
_NEVER = datetime.min.replace(tzinfo=UTC)
_WEIGHTS = ("artifact_id", "weights_url", "weights_state")


@dataclass(frozen=True, slots=True)
class VersionGroup:
    """Versions of one model that are one LoRA."""

    model_key: str
    survivor: int
    losers: tuple[int, ...]
    names: dict[str, str]
    """Version id (as text, for JSON) → its name."""
    fields: dict[str, dict[str, Any]]
    """Field → `from` (version id) and `because`; with its `value` as it may be shown where a loser has it."""
    fingerprint: str
    """Of the versions as they were planned with: they are merged only if they are still so."""


@dataclass(frozen=True, slots=True)
class RegistryPlan:
    """What would be merged in the registry."""

    id: str
    state: str
    made_at: str
    versions_read: int = 0
    groups: tuple[VersionGroup, ...] = ()
    reviews: tuple[dict[str, Any], ...] = field(default=())

    @property
    def removed(self) -> int:
        return sum(len(group.losers) for group in self.groups)


def plan_registry(database: Database, rules: ObjectUrlRules, now: datetime) -> RegistryPlan:
    """What would be merged. Nothing is changed, and nothing stored."""
    groups: list[VersionGroup] = []
    reviews: list[dict[str, Any]] = []
    seen: dict[object, tuple[int, int, str]] = {}
    count = 0
    with database.read() as session:
        for versions in _by_model(session, rules):
            count += len(versions)
            unified = unify([version.ids for version in versions])
            groups += [_group([versions[index] for index in found], rules) for found in unified.groups]
            reviews += [
                _review([versions[index] for index in doubt.members], doubt.reason)
                for doubt in unified.doubts
            ]
            reviews += _elsewhere(versions, seen)
    plan_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return RegistryPlan(
        plan_id, "planned", now.isoformat(timespec="seconds"), count, tuple(groups), tuple(reviews)
    )


def store_plan(database: Database, plan: RegistryPlan, now: datetime) -> RegistryPlan:
    """Keep a plan for review, and what it leaves to a person among the review items.

    The plan as it is kept: the same one again, made earlier and not applied yet, keeps its id.
    """
    groups = [asdict(group) for group in plan.groups]
    digest = sha256(json.dumps(groups, sort_keys=True).encode()).hexdigest()
    keep_reviews(database, REVIEW_KIND, ((review["subject"], review) for review in plan.reviews), now)
    if not groups:
        return plan
    with database.begin() as session:
        same = select(MergePlan.id).where(
            MergePlan.scope == REGISTRY, MergePlan.state == "planned", MergePlan.fingerprint == digest
        )
        known = session.scalars(same).first()
        if known is not None:
            return replace(plan, id=known)
        session.add(MergePlan(id=plan.id, scope=REGISTRY, groups=groups, fingerprint=digest, created_at=now))
    return plan


def load_plan(database: Database, plan_id: str) -> RegistryPlan:
    """A stored plan. PlanNotFound where there is none of that id."""
    with database.read() as session:
        row = session.get(MergePlan, plan_id)
        if row is None or row.scope != REGISTRY:
            raise PlanNotFound(f"there is no plan {plan_id!r}. Make one: lora-pipeline dedupe")
        groups = tuple(VersionGroup(**{**group, "losers": tuple(group["losers"])}) for group in row.groups)
        return RegistryPlan(row.id, row.state, row.created_at.isoformat(timespec="seconds"), 0, groups)


def _by_model(session: Session, rules: ObjectUrlRules) -> Iterator[list[KnownVersion]]:
    last = 0
    while True:
        ids = list(
            session.scalars(
                select(UserModel.id).where(UserModel.id > last).order_by(UserModel.id).limit(_MODELS_A_READ)
            )
        )
        if not ids:
            return
        last = ids[-1]
        models: dict[int, list[KnownVersion]] = {}
        for version in with_content_of_their_place(session, read_versions(session, ids, rules)):
            models.setdefault(version.model_id, []).append(version)
        yield from models.values()
        session.expunge_all()


def _group(versions: Sequence[KnownVersion], rules: ObjectUrlRules) -> VersionGroup:
    ranked = sorted(versions, key=_rank, reverse=True)
    base = ranked[0]
    why = _why_first(_rank(base), _rank(ranked[1]))
    fields = {name: _choice(ranked, name, why) for name in base.values if name not in _WEIGHTS}
    # Content, address and what is known of them belong together.
    fields |= dict.fromkeys(_WEIGHTS, _weights(ranked, rules))
    values = {one.id: one.values for one in ranked}
    for name, choice in fields.items():
        if choice["from"] != base.id:
            fields[name] = {**choice, "value": shown_value(values[choice["from"]][name])}
    return VersionGroup(
        base.model_key,
        base.id,
        tuple(one.id for one in ranked[1:]),
        {str(one.id): one.name for one in ranked},
        fields,
        fingerprint(versions),
    )


def _weights(ranked: Sequence[KnownVersion], rules: ObjectUrlRules) -> dict[str, Any]:
    """Whose weights stay: verified ones before others, then an address that is that of today."""

    def worth(version: KnownVersion) -> tuple[bool, bool, bool, bool]:
        state, address = version.values["weights_state"], version.values["weights_url"]
        current = bool(address) and not was_renamed(address, rules)
        return state == "verified", current, bool(address), state != "missing"

    best = max(ranked, key=worth)
    verified = best.values["weights_state"] == "verified"
    because = "its weights are verified" if verified else "it knows where the weights lie"
    return {"from": best.id, "because": because}


def _rank(version: KnownVersion) -> tuple[bool, bool, bool, bool, datetime, int]:
    values = version.values
    trained = values["trained_at"]
    return (
        # Its trigger word is the survivor's, and one that was only supposed must not replace it.
        values["provenance"].get("trigger_word") != THE_MODELS,
        bool(values["parameters"]),
        trained is not None,
        values["provider_version"] is not None,
        datetime.fromisoformat(trained) if trained else _NEVER,
        -version.id,
    )


def _why_first(first: tuple[Any, ...], second: tuple[Any, ...]) -> str:
    reasons = (
        "an old file or a training tells its trigger word",
        "detailed parameters",
        "it says when it was trained",
        "it has a provider's version",
        "the newest",
    )
    differing = (reason for reason, one, other in zip(reasons, first, second, strict=False) if one != other)
    return next(differing, "the first to be registered")


def _choice(ranked: Sequence[KnownVersion], name: str, why: str) -> dict[str, Any]:
    if name == "last_synced_at" and any(one.values[name] for one in ranked):
        return {"from": max(ranked, key=lambda one: one.values[name] or "").id, "because": "the latest sync"}
    having = next((one for one in ranked if one.values[name] not in (None, {}, "")), ranked[0])
    because = why if having is ranked[0] else "the richer version does not have it"
    return {"from": having.id, "because": because}


def _links(ids: StrongIds) -> Iterator[object]:
    yield from ids.jobs
    yield from ids.content_keys
    yield from ids.places
    yield from ids.provider_versions


def _review(versions: Sequence[KnownVersion], reason: str) -> dict[str, Any]:
    names = [f"{version.model_key} {version.name}" for version in versions]
    ids = ",".join(str(version.id) for version in sorted(versions, key=lambda one: one.id)[:20])
    return {"subject": f"versions {ids}", "versions": names, "reason": reason}


def _elsewhere(
    versions: Sequence[KnownVersion], seen: dict[object, tuple[int, int, str]]
) -> Iterator[dict[str, Any]]:
    """Versions whose job, content or object another model has too."""
    for version in versions:
        name = f"{version.model_key} {version.name}"
        others = set()
        for link in _links(version.ids):
            known_as = link.ref if isinstance(link, Place) else link
            first = seen.setdefault(known_as, (version.model_id, version.id, name))
            if first[0] != version.model_id:
                others.add(first[1:])
        for other_id, other_name in sorted(others):
            yield {
                "subject": f"versions {other_id},{version.id}",
                "versions": [other_name, name],
                "reason": "the same LoRA under two models: whose it is, a person decides",
            }
