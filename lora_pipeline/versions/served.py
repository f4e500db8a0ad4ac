"""What a model serves, as a rule over its own row and its open activation. Pure; faces ask `resolve`.

`user_models` shows what is served, and older applications wrote it too: every spelling of a version that they
left there works at once, and what is no trained version of this model is never given out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from lora_pipeline.identity import VersionRef, parse_version
from lora_pipeline.versions.formats import KNOWN_TRAINERS, read_stored, weights_problem


@dataclass(frozen=True)
class ModelRow:
    """The served columns of a model's row, as they are spelled there."""

    model_key: str
    replicate_model_id: str | None
    replicate_version_id: str | None
    lora_weights_url: str | None
    lora_scale: float
    trigger_word: str


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as the registry has it."""

    number: int
    provider_version: str | None
    weights_url: str | None
    weights_state: str
    trigger_word: str
    lora_scale: float
    simulated: bool
    provider: str = "replicate"
    active_since: datetime | None = None
    """Since when it is the active one; None where it is not."""
    pinned: bool = False


@dataclass(frozen=True)
class ServedLora:
    """What an application is to use."""

    model_key: str
    version: int | None
    """Our number; None for a version that was never registered."""
    provider_version: VersionRef | None
    """None for providers that keep no versions."""
    weights_url: str | None = field(repr=False)
    """As stored, not signed. None where it is not known."""
    weights_state: str
    trigger_word: str
    lora_scale: float
    pinned: bool
    simulated: bool
    problem: str | None = None
    """What is wrong with the row where the registry had to stand in for it."""


def unregistered_version(
    row: ModelRow, active: RegisteredVersion | None, trainers: Iterable[VersionRef] = KNOWN_TRAINERS
) -> str | None:
    """`owner/name:64hex` where the row has a version that is not the active one: it may be registered still."""
    stored = read_stored(row.replicate_model_id, row.replicate_version_id, trainers).canonical_version
    return None if _names(stored, active) else stored


def served_lora(
    row: ModelRow,
    active: RegisteredVersion | None,
    other: RegisteredVersion | None = None,
    trainers: Iterable[VersionRef] = KNOWN_TRAINERS,
) -> ServedLora | None:
    """What the model serves, or None where it serves nothing.

    The row decides where it names a trained version of its model: that is what everything else which reads the
    row uses. Otherwise the active version stands in for it. `other` is the registry's entry of the row's
    version where that is not the active one.
    """
    stored = read_stored(row.replicate_model_id, row.replicate_version_id, trainers)
    if active is not None and _names(stored.canonical_version, active):
        return registered_lora(row.model_key, active, scale=row.lora_scale)
    if stored.canonical_version is None:
        problem = "the row names a trainer's version" if stored.is_trainer else stored.version_problem
        return registered_lora(row.model_key, active, problem) if active is not None else None
    if other is not None:
        return registered_lora(row.model_key, other, scale=row.lora_scale)
    assert stored.version is not None
    wrong = weights_problem(row.lora_weights_url, stored.version)
    return ServedLora(
        row.model_key,
        version=None,
        provider_version=stored.version,
        weights_url=None if wrong else row.lora_weights_url,
        weights_state="missing" if wrong else "unverified",
        trigger_word=row.trigger_word,
        lora_scale=row.lora_scale,
        pinned=False,
        simulated=False,
        problem=wrong,
    )


def registered_lora(
    model_key: str, version: RegisteredVersion, problem: str | None = None, *, scale: float | None = None
) -> ServedLora:
    """A registered version with its own weights: never those of another, whatever the row says beside it.

    `scale` is the model's LoRA scale, where that counts instead of the version's.
    """
    ref = parse_version(version.provider_version) if version.provider_version else None
    wrong = weights_problem(version.weights_url, ref)
    return ServedLora(
        model_key,
        version=version.number,
        provider_version=ref,
        weights_url=None if wrong else version.weights_url,
        weights_state="missing" if wrong else version.weights_state,
        trigger_word=version.trigger_word,
        lora_scale=version.lora_scale if scale is None else scale,
        pinned=version.pinned,
        simulated=version.simulated,
        problem=problem or wrong,
    )


def _names(canonical: str | None, version: RegisteredVersion | None) -> bool:
    return canonical is not None and version is not None and canonical == version.provider_version
