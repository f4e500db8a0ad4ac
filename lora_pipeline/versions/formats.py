"""Reading what `user_models` stores of a provider version, in every spelling that older applications left there.

Pure: nothing here asks a database or a provider. Writing the canonical spelling back is `normalisation`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lora_pipeline.identity import (
    IdentityError,
    ModelRef,
    VersionRef,
    parse_model,
    parse_version,
)

KNOWN_TRAINERS = tuple(
    parse_version(text)
    for text in (
        "ostris/flux-dev-lora-trainer:26dce37af90b9d997eeb970d92e47de3064d46c300504ae376c75bef6a9022d2",
        "ostris/flux-dev-lora-trainer:e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497",
        "replicate/fast-flux-trainer:8b10794665aed907bb98a1a5324cd1d3a8bea0e9b31e65210967fb9c9e2e08ed",
    )
)
"""Trainers in use. A training's own `version` field is its trainer's, and was stored as the trained version."""

UNKNOWN = "unknown"
"""What older applications wrote where they did not know the address of a model's weights."""


@dataclass(frozen=True)
class StoredVersion:
    """A model's version as its row spells it, understood."""

    model: ModelRef | None
    """None where the model column does not tell it."""
    model_problem: str | None
    version: VersionRef | None
    """Completed by the model; a trainer's version stays as it is spelled. None where missing or malformed."""
    version_problem: str | None
    """Why the stored text is no version; None also where nothing is stored."""
    is_trainer: bool = False

    @cached_property
    def canonical_model(self) -> str | None:
        """`owner/name`."""
        return str(self.model) if self.model else None

    @cached_property
    def canonical_version(self) -> str | None:
        """`owner/name:64hex`; None for anything that is not a trained version of this very model."""
        usable = self.version is not None and not self.is_trainer and self.model is not None
        return self.version.qualified if usable and self.version is not None else None


def read_stored(
    model_text: str | None, version_text: str | None, trainers: Iterable[VersionRef] = KNOWN_TRAINERS
) -> StoredVersion:
    """Understand the two columns together: the model completes a bare hash or `model:hash`.

    A version of another model than the row's is a problem, never a guess. Raises nothing.
    """
    model, model_problem = _model(model_text)
    if version_text is None or not version_text.strip():
        return StoredVersion(model, model_problem, None, None)
    try:
        version = parse_version(version_text)
    except IdentityError as error:
        return StoredVersion(model, model_problem, None, str(error))
    if _is_trainer(version, tuple(trainers)):
        return StoredVersion(model, model_problem, version, None, is_trainer=True)
    try:
        return StoredVersion(model, model_problem, version.of_model(model) if model else version, None)
    except IdentityError as error:
        return StoredVersion(model, model_problem, None, str(error))


@lru_cache(maxsize=4)
def _trainers(trainers: tuple[VersionRef, ...]) -> tuple[frozenset[str], frozenset[ModelRef]]:
    models = (trainer.model for trainer in trainers)
    return frozenset(trainer.hash for trainer in trainers), frozenset(model for model in models if model)


def _is_trainer(version: VersionRef, trainers: tuple[VersionRef, ...]) -> bool:
    """`identity.is_trainer_version` as two look-ups: this is asked for every row of a fleet."""
    hashes, models = _trainers(trainers)
    return version.hash in hashes or version.model in models


def weights_problem(url: str | None, version: VersionRef | None) -> str | None:
    """Why an address cannot be that of a version's weights, without the address; None where it may be.

    The provider's addresses are opaque: one that contains the version's hash was put together by somebody.
    Only whether it is an address is told here, not whether something lies there.
    """
    text = (url or "").strip()
    if not text or text.lower() == UNKNOWN:
        return "the address of its weights is not known"
    if version is not None and version.hash in text.lower():
        return "the address of its weights was put together from the version's hash, which leads nowhere"
    return None


def _model(text: str | None) -> tuple[ModelRef | None, str | None]:
    if text is None or not text.strip():
        return None, "replicate_model_id is null or empty"
    try:
        return parse_model(text), None
    except IdentityError as error:
        problem = str(error)
    try:
        version_in_its_place = parse_version(text).model
    except IdentityError:
        return None, problem
    return (version_in_its_place, None) if version_in_its_place else (None, problem)
