"""Deleting at the provider what was trained there: versions, then the models that they were of, and uploaded files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lora_pipeline.erasure.plan import SIMULATED, Kind
from lora_pipeline.providers.protocol import (
    KeepsVersions,
    NotFound,
    ProviderError,
    ProviderUnavailable,
    Refused,
    TrainingProvider,
)
from lora_pipeline.settings import SettingsError

VERSIONS_FIRST = "its versions are still being deleted"
DELETING = "the provider takes minutes to delete it"
SIMULATED_ONLY = "it was only ever simulated"
NOT_SET_UP = "the provider is not set up here, so nothing can be deleted there"
REFUSED = (
    "the provider refused: only private models of your own account that nobody else runs can be deleted there"
)


@dataclass(frozen=True)
class Outcome:
    """How one step stands now."""

    state: str
    """`pending`, `asked`, `deleted`, `gone` or `stays`."""
    reason: str = ""
    until: datetime | None = None
    more: Sequence[str] = field(default=())
    """Versions that the provider has of a model and nobody here knew."""
    told: str = field(default="", repr=False)
    """For whoever watches, with names; never stored."""


def at_provider(
    provider: Callable[[], TrainingProvider], kind: Kind, target: str, state: str, until: datetime | None
) -> Outcome:
    """Do one step. What the provider refuses stays, and says so; trouble leaves the step for the next time."""
    simulated = target.startswith(SIMULATED)
    target = target.removeprefix(SIMULATED)
    try:
        try:
            asked = provider()
        except SettingsError as error:
            return (
                Outcome("gone", SIMULATED_ONLY)
                if simulated
                else Outcome("pending", NOT_SET_UP, until, told=str(error))
            )
        if simulated and not asked.simulated:
            return Outcome("gone", SIMULATED_ONLY)
        return _ask(asked, kind, target, state)
    except NotFound:
        return Outcome("gone")
    except Refused as error:
        return Outcome("stays", REFUSED, until, told=str(error))
    except ProviderError as error:
        return Outcome(
            "pending", f"the provider has trouble ({type(error).__name__})", until, told=str(error)
        )


def _ask(provider: TrainingProvider, kind: Kind, target: str, state: str) -> Outcome:
    if kind is Kind.PROVIDER_FILE:
        provider.delete_file(target)
        return Outcome("deleted")
    if not isinstance(provider, KeepsVersions):
        raise ProviderUnavailable(f"{provider.name} keeps no versions")
    if kind is Kind.PROVIDER_VERSION:
        return _version(provider, target, state)
    left = [f"{target}:{version.id}" for version in provider.list_versions(target)]
    if left:
        return Outcome("pending", VERSIONS_FIRST, more=left)
    provider.delete_model(target)
    return Outcome("deleted")


def _version(provider: KeepsVersions, target: str, state: str) -> Outcome:
    if not provider.has_version(target):
        return Outcome("deleted" if state == "asked" else "gone")
    if state != "asked":
        provider.delete_version(target)
        if not provider.has_version(target):
            return Outcome("deleted")
    return Outcome("asked", DELETING)
