"""Which version a LoRA found in a bucket belongs to: the rule, over what the object is known by. Pure.

It belongs to the one that its training's token or job, its content, or its place names, in whatever spelling. File
names, sizes, ETags and times are not asked. What those ids contradict each other about, a person decides; and nothing
found in a bucket makes a version of its own, or a completed training of a failed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lora_pipeline.identity import JobId, ObjectRef, job_of
from lora_pipeline.inventory.unifying import Place, StrongIds, contradiction

JOB_CLAIMS = ("runpod_job_id", "replicate_job_id")
TOKEN_CLAIM = "token"  # noqa: S105
"""Names of user metadata in which a training's writer says whose the object is."""
_LONGEST_CLAIM = 128


class Standing(StrEnum):
    """What became of a found file. The values are stored."""

    WAITING = "waiting"
    """Not read yet."""
    ATTACHED = "attached"
    """It belongs to a registered version."""
    EXPECTED = "expected"
    """Its training is under way: finalising registers it."""
    UNREGISTERED = "unregistered"
    """A LoRA that no version knows."""
    DOUBTFUL = "doubtful"
    """What it is known by contradicts itself, or the registry."""
    REFUSED = "refused"
    """No LoRA file, or a broken one."""


class Review(StrEnum):
    """What a person is asked. The values are stored as kinds of review items."""

    DOUBTFUL_OBJECT = "doubtful_object"
    ENDED_TRAINING = "object_of_ended_training"
    OVERWRITTEN_WEIGHTS = "overwritten_weights"
    UNREGISTERED_LORA = "unregistered_lora"


@dataclass(frozen=True, slots=True)
class FoundLora:
    """A LoRA that was read from a bucket."""

    ref: ObjectRef
    """Where it lies, under today's name of its folder."""
    object_version: str
    content_key: str
    job: JobId | None = None
    token: str | None = None
    is_current: bool = True
    """False for an older version, and for one behind a delete marker: its key does not lead to it."""
    is_alone: bool = True
    """Whether other bytes were never seen under its key."""


@dataclass(frozen=True, slots=True)
class KnownLora:
    """A registered version."""

    version_id: int
    name: str
    """As a person is told: `V7 of style_1`."""
    ids: StrongIds


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A training run whose token or job the object carries, and which led to no version."""

    run_id: int
    state: str
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Where an object stands, and why."""

    standing: Standing
    reason: str
    version_id: int | None = None
    """The version it belongs to."""
    review: Review | None = None
    subject: str | None = None
    """What the review is about, where that is not the object."""
    displaced: tuple[int, ...] = field(default=())
    """Versions whose own address leads to these other bytes now."""


def claims_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """What user metadata says about the training: kept word for word, bounded, and nothing else of it.

    Some gateways to S3 turn '_' in names into '-'.
    """
    named = {name.lower().replace("-", "_"): text.strip() for name, text in metadata.items()}
    return {
        name: named[name]
        for name in (*JOB_CLAIMS, TOKEN_CLAIM)
        if 0 < len(named.get(name, "")) <= _LONGEST_CLAIM
    }


def claimed_job(claims: Mapping[str, str]) -> JobId | None:
    """The provider's job that the claims name, or None where they name none that could be one."""
    return next((job for name in JOB_CLAIMS if (job := job_of(claims.get(name))) is not None), None)


def decide(found: FoundLora, versions: Sequence[KnownLora], runs: Sequence[KnownRun]) -> Decision:
    """Where a found LoRA stands, given every version and every run that shares a strong id with it.

    The versions of runs that led to one are among `versions`, whatever else they share.
    """
    for run in runs:
        if run.has_ended:
            return Decision(
                Standing.DOUBTFUL,
                f"it carries the id of training run {run.run_id}, which ended as {run.state}: that stays so until a "
                f"person decides (lora-pipeline trainings show {run.run_id})",
                review=Review.ENDED_TRAINING,
                subject=f"training run {run.run_id}",
            )
    if runs:
        states = ", ".join(f"{run.run_id} is {run.state}" for run in runs)
        return Decision(Standing.EXPECTED, f"training run {states}: finalising it registers the version")
    displaced, candidates = _candidates(found, versions)
    ids = _ids(found)
    for version in candidates:
        problem = contradiction([ids, version.ids]) or _unsure_of_place(found, version)
        if problem is not None:
            return _doubt(f"{problem}: it and {version.name}", displaced)
    if len(candidates) > 1:
        names = ", ".join(version.name for version in candidates)
        return _doubt(f"{names} are all of this LoRA; see lora-pipeline dedupe", displaced)
    if candidates:
        (version,) = candidates
        reason = f"{version.name} {_why(found, version)}"
        return Decision(Standing.ATTACHED, reason, version.version_id, displaced=displaced)
    if displaced:
        names = ", ".join(version.name for version in versions if version.version_id in displaced)
        return _doubt(f"its place is that of {names}, which has other content", displaced)
    return Decision(Standing.UNREGISTERED, "no version knows this LoRA", review=Review.UNREGISTERED_LORA)


def _candidates(
    found: FoundLora, versions: Sequence[KnownLora]
) -> tuple[tuple[int, ...], tuple[KnownLora, ...]]:
    """The versions that only used to lie at this place, and those that this LoRA may belong to."""
    displaced, candidates = [], []
    for version in versions:
        if _shares_only_place(found, version):
            if version.ids.content_keys:
                # Its content is known, and another: the key was overwritten, which says nothing about these bytes.
                if found.is_current:
                    displaced.append(version.version_id)
                continue
            if not _may_be_meant(found, version):
                continue
        candidates.append(version)
    return tuple(displaced), tuple(candidates)


def _shares_only_place(found: FoundLora, version: KnownLora) -> bool:
    return (
        found.content_key not in version.ids.content_keys
        and not _same_job(found, version)
        and any(place.ref == found.ref for place in version.ids.places)
    )


def _may_be_meant(found: FoundLora, version: KnownLora) -> bool:
    """Whether an address of the version leads to this object version, or says nothing about versions."""
    return any(
        place.ref == found.ref and place.object_version in (None, found.object_version or None)
        for place in version.ids.places
    )


def _unsure_of_place(found: FoundLora, version: KnownLora) -> str | None:
    """Why a place alone does not tell, where the key has had several contents."""
    if not _shares_only_place(found, version):
        return None
    if any(
        place.ref == found.ref and place.object_version == found.object_version
        for place in version.ids.places
        if found.object_version
    ):
        return None
    if found.is_alone and found.is_current:
        return None
    return "its key has had several contents, and an address without an object version does not say which"


def _same_job(found: FoundLora, version: KnownLora) -> bool:
    job = found.job
    return job is not None and any(
        (one.provider, one.base) == (job.provider, job.base) for one in version.ids.jobs
    )


def _why(found: FoundLora, version: KnownLora) -> str:
    if found.content_key in version.ids.content_keys:
        return "has this content"
    if _same_job(found, version):
        return "is of the provider's job that the object names"
    if any(place.ref == found.ref for place in version.ids.places):
        return "has this address"
    return "is of the training whose token the object carries"


def _ids(found: FoundLora) -> StrongIds:
    return StrongIds(
        jobs=frozenset() if found.job is None else frozenset({found.job}),
        content_keys=frozenset({found.content_key}),
        places=frozenset({Place(found.ref, found.object_version or None)}),
    )


def _doubt(reason: str, displaced: tuple[int, ...]) -> Decision:
    return Decision(Standing.DOUBTFUL, reason, review=Review.DOUBTFUL_OBJECT, displaced=displaced)
