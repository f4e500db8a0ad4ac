"""What an erasure plan holds, and which weights have to survive it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lora_pipeline.erasure.names import Name


class Kind(StrEnum):
    """What has to go, in the order in which it goes: a model at the provider only after its versions."""

    PROVIDER_FILE = "provider file"
    PROVIDER_VERSION = "provider version"
    PROVIDER_MODEL = "provider model"
    PROVIDER_TRAINING = "provider training"
    ORIGINAL = "original"
    NORMALISED = "normalised image"
    MANIFEST = "manifest"
    CONTACT_SHEET = "contact sheet"
    TRAINING_ZIP = "training ZIP"
    WEIGHTS = "weights"
    LEFTOVER = "file"
    """Found in a folder of the user's, and not known from any row."""
    FOLDER = "folder"
    """A folder of our store, emptied of whatever still lies there."""
    INBOX = "inbox folder"
    PARTITION = "Dagster partition"


ORDER = tuple(Kind)
OBJECTS = frozenset(
    {
        Kind.ORIGINAL,
        Kind.NORMALISED,
        Kind.MANIFEST,
        Kind.CONTACT_SHEET,
        Kind.TRAINING_ZIP,
        Kind.WEIGHTS,
        Kind.LEFTOVER,
    }
)
"""Kinds whose target is the address of one stored object."""
SIMULATED = "simulated "
"""Begins the target of what only a simulator ever had."""

NO_UNDO = "An erasure cannot be undone: nothing of it is kept to restore from, as the law demands."


@dataclass(frozen=True, order=True)
class Item:
    """One thing outside the database. With `stays` it is only named: nobody here can delete it."""

    kind: Kind
    target: str
    sha256: str | None = None
    stays: str = ""
    until: datetime | None = None
    """When what stays goes by itself, where that is known."""


@dataclass(frozen=True)
class ErasurePlan:
    """Everything of one user: what goes, what stays and why, and what was never ours."""

    user_id: str
    models: tuple[str, ...]
    """Model keys."""
    items: tuple[Item, ...]
    outside: tuple[str, ...]
    """Addresses of photographs and old files that we read and do not own: whoever put them there removes them."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Table → rows."""
    names: frozenset[tuple[Name, str]] = frozenset()
    """What they were called, to be recognised afterwards."""

    @property
    def going(self) -> list[Item]:
        return [item for item in self.items if not item.stays]

    @property
    def staying(self) -> list[Item]:
        return [item for item in self.items if item.stays]

    def as_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            "user": self.user_id,
            "models": list(self.models),
            "delete": [
                {"what": one.kind.value, "where": one.target, "sha256": one.sha256} for one in self.going
            ],
            "stays": [
                {"what": one.kind.value, "where": one.target, "why": one.stays, "until": one.until}
                for one in self.staying
            ],
            "outside": list(self.outside),
            "rows": dict(self.rows),
            "undo": None,
            "note": NO_UNDO,
        }


@dataclass(frozen=True)
class Lying:
    """One place where an artifact lies."""

    address: str
    sha256: str | None
    in_own_folder: bool
    """Whether it lies in the folder that our store has for the weights of the user's own models."""


SHARED = "another user's version has the same weights"
OVERWRITTEN = "other bytes lie there now, and nobody has said that they are this user's"


def weights_items(
    places: Iterable[Lying], *, shared: bool, named_by_others: Collection[str]
) -> Iterable[Item]:
    """What becomes of the places of one artifact.

    Weights are stored by content. Where another user's version has the same ones, they are that user's as much: only
    copies in the erased user's own folder go, and only while another copy is left that somebody else names.
    """
    places = sorted(places, key=lambda one: one.address)
    others_have_one = any(one.address in named_by_others for one in places)
    for one in places:
        theirs = one.address in named_by_others or (shared and not (one.in_own_folder and others_have_one))
        yield Item(Kind.WEIGHTS, one.address, one.sha256, stays=SHARED if theirs else "")


def is_mentioned(value: Any, names: Collection[str], pattern: Any) -> bool:
    """Whether a JSON value names one of them: a text that is the name, or that contains a telling one as a word."""
    if isinstance(value, str):
        return value in names or (pattern is not None and pattern.search(value) is not None)
    if isinstance(value, Mapping):
        return any(
            is_mentioned(key, names, pattern) or is_mentioned(one, names, pattern)
            for key, one in value.items()
        )
    if isinstance(value, list | tuple):
        return any(is_mentioned(one, names, pattern) for one in value)
    return False
