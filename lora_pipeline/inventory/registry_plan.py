"""A plan for versions of the registry that are one LoRA: read, decided field by field, and stored for review.

Only versions of one model are merged; the same LoRA under two models is for a person. Carrying a plan out is in
`registry_merging`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import (
    Artifact,
    MergePlan,
    ModelVersion,
    ReviewItem,
    UserModel,
    VersionAlias,
    VersionRedirect,
)
from lora_pipeline.identity import IdentityError, JobId, ObjectAddress, ObjectUrlRules, parse_object_url
from lora_pipeline.inventory.plan_store import PlanNotFound
from lora_pipeline.inventory.unifying import Place, StrongIds, job_of, unify

REGISTRY = "registry"
REVIEW_KIND = "duplicate"
_MODELS_A_READ = 500
_NEVER = datetime.min.replace(tzinfo=UTC)
_WEIGHTS = ("artifact_id", "weights_url", "weights_state")


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version as the rules see it."""

    id: int
    model_id: int
    model_key: str
    number: int
    ids: StrongIds
    values: dict[str, Any]
    """The fields that merging decides over."""
    names: tuple[tuple[str, str], ...]
    """(kind, alias) of everything that means it."""

    @property
    def name(self) -> str:
        return f"V{self.number}"


@dataclass(frozen=True, slots=True)
class VersionGroup:
    """Versions of one model that are one LoRA."""

    model_key: str
    survivor: int
    losers: tuple[int, ...]
    names: dict[str, str]
    """Version id (as text, for JSON) → its name."""
    fields: dict[str, dict[str, Any]]
    """Field → `from` (version id) and `because`."""
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
            groups += [_group([versions[index] for index in found]) for found in unified.groups]
            reviews += [
                _review([versions[index] for index in doubt.members], doubt.reason)
                for doubt in unified.doubts
            ]
            reviews += _elsewhere(versions, seen)
    plan_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    return RegistryPlan(
        plan_id, "planned", now.isoformat(timespec="seconds"), count, tuple(groups), tuple(reviews)
    )


def store_plan(database: Database, plan: RegistryPlan, now: datetime) -> None:
    """Keep a plan for review, and what it leaves to a person among the review items."""
    groups = [asdict(group) for group in plan.groups]
    with database.begin() as session:
        if groups:
            session.add(
                MergePlan(
                    id=plan.id,
                    scope=REGISTRY,
                    groups=groups,
                    fingerprint=sha256(json.dumps(groups, sort_keys=True).encode()).hexdigest(),
                    created_at=now,
                )
            )
        known = set(session.scalars(select(ReviewItem.subject).where(ReviewItem.kind == REVIEW_KIND)))
        for review in plan.reviews:
            if review["subject"] not in known:
                known.add(review["subject"])
                session.add(
                    ReviewItem(kind=REVIEW_KIND, subject=review["subject"], details=review, created_at=now)
                )


def load_plan(database: Database, plan_id: str) -> RegistryPlan:
    """A stored plan. PlanNotFound where there is none of that id."""
    with database.read() as session:
        row = session.get(MergePlan, plan_id)
        if row is None or row.scope != REGISTRY:
            raise PlanNotFound(f"there is no plan {plan_id!r}. Make one: lora-pipeline dedupe")
        groups = tuple(VersionGroup(**{**group, "losers": tuple(group["losers"])}) for group in row.groups)
        return RegistryPlan(row.id, row.state, row.created_at.isoformat(timespec="seconds"), 0, groups)


def fingerprint(versions: Iterable[KnownVersion]) -> str:
    """A digest of everything that merging these versions is decided from."""
    facts = [
        [version.id, version.values, version.names] for version in sorted(versions, key=lambda one: one.id)
    ]
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def read_versions(
    session: Session, model_ids: Sequence[int], rules: ObjectUrlRules | None = None
) -> list[KnownVersion]:
    """The versions of these models that are not merged into another, by model and number."""
    rows = session.execute(
        select(ModelVersion, UserModel.model_key, Artifact.content_key)
        .join(UserModel, UserModel.id == ModelVersion.model_id)
        .outerjoin(Artifact, Artifact.id == ModelVersion.artifact_id)
        .outerjoin(VersionRedirect, VersionRedirect.old_version_id == ModelVersion.id)
        .where(ModelVersion.model_id.in_(model_ids), VersionRedirect.old_version_id.is_(None))
        .order_by(ModelVersion.model_id, ModelVersion.number)
    ).all()
    names: dict[int, list[tuple[str, str]]] = {}
    for version_id, kind, alias in session.execute(
        select(VersionAlias.version_id, VersionAlias.kind, VersionAlias.alias)
        .join(ModelVersion, ModelVersion.id == VersionAlias.version_id)
        .where(ModelVersion.model_id.in_(model_ids))
    ):
        names.setdefault(version_id, []).append((kind, alias))
    return [
        KnownVersion(
            version.id,
            version.model_id,
            model_key,
            version.number,
            _strong_ids(version, content, names.get(version.id, []), rules or ObjectUrlRules()),
            _values(version),
            tuple(sorted(names.get(version.id, ()))),
        )
        for version, model_key, content in rows
    ]


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
        for version in read_versions(session, ids, rules):
            models.setdefault(version.model_id, []).append(version)
        yield from models.values()
        session.expunge_all()


def _strong_ids(
    version: ModelVersion, content: str | None, names: Iterable[tuple[str, str]], rules: ObjectUrlRules
) -> StrongIds:
    addresses = {alias for kind, alias in names if kind == "object"} | {version.weights_url or ""}
    places = (_place(address, rules) for address in addresses)
    return StrongIds(
        jobs=frozenset(_job(alias) for kind, alias in names if kind == "training_id"),
        content_keys=frozenset() if content is None else frozenset((content,)),
        places=frozenset(place for place in places if place is not None),
        provider_versions=frozenset(filter(None, (version.provider_version,))),
    )


def _job(alias: str) -> JobId:
    provider, _, text = alias.partition(":")
    known = job_of(text)
    return known or JobId(text, "runpod" if provider == "runpod" else "replicate", text)


def _place(address: str, rules: ObjectUrlRules) -> Place | None:
    if not address or address.startswith("file://"):
        return None
    try:
        parsed = parse_object_url(address, rules)
    except IdentityError:
        return None
    return Place(parsed.ref, parsed.version_id) if isinstance(parsed, ObjectAddress) else None


def _values(version: ModelVersion) -> dict[str, Any]:
    return {
        "provider": version.provider,
        "provider_version": version.provider_version,
        "training_run_id": version.training_run_id,
        "artifact_id": version.artifact_id,
        "weights_url": version.weights_url,
        "weights_state": version.weights_state,
        "parameters": version.parameters,
        "image_count": version.image_count,
        "provenance": version.provenance,
        "trained_at": version.trained_at.isoformat() if version.trained_at else None,
    }


def _group(versions: Sequence[KnownVersion]) -> VersionGroup:
    ranked = sorted(versions, key=_rank, reverse=True)
    base = ranked[0]
    why = "detailed parameters" if base.values["parameters"] else "the first to be trained"
    fields = {name: _choice(ranked, name, why) for name in base.values if name not in _WEIGHTS}
    verified = next((one for one in ranked if one.values["weights_state"] == "verified"), None)
    located = next((one for one in ranked if one.values["weights_url"]), base)
    for name in _WEIGHTS:
        # Content, address and what is known of them belong together.
        fields[name] = (
            {"from": verified.id, "because": "its weights are verified"}
            if verified is not None
            else {"from": located.id, "because": "it knows where the weights lie"}
        )
    return VersionGroup(
        base.model_key,
        base.id,
        tuple(one.id for one in ranked[1:]),
        {str(one.id): one.name for one in ranked},
        fields,
        fingerprint(versions),
    )


def _rank(version: KnownVersion) -> tuple[bool, bool, bool, datetime, int]:
    values = version.values
    trained = values["trained_at"]
    return (
        bool(values["parameters"]),
        trained is not None,
        values["provider_version"] is not None,
        datetime.fromisoformat(trained) if trained else _NEVER,
        -version.id,
    )


def _choice(ranked: Sequence[KnownVersion], name: str, why: str) -> dict[str, Any]:
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
