"""One entry of a training_versions.json: what it is known by, when it was made, and how much it says.

Two writers made these entries. The webhook's has the provider's job as id and the training's parameters; the one
of a bucket listing has the file's name as id, empty parameters and `lastSynced`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lora_pipeline.identity import (
    IdentityError,
    ObjectAddress,
    ObjectRef,
    ObjectUrlRules,
    Unresolved,
    job_of,
    parse_object_url,
)
from lora_pipeline.inventory.unifying import Place, StrongIds

Entry = Mapping[str, Any]

MERGED_IDS = "mergedIds"
"""Key of the surviving entry that lists the ids of those merged into it, so that each still leads somewhere."""
SYNCED = "Synced from S3"
"""The description that a bucket listing writes: no person's words."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+\.safetensors")
_NOT_PLAIN = re.compile(r"[?#%+\s\\@=&]")
_SURELY_SHORT = 900
_ANY_NAME = "any.safetensors"
ENDED = frozenset({"completed", "failed"})


def has_id(entry: Any) -> bool:
    """Whether what stands in the list is an object with an id."""
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and bool(entry["id"].strip())


@dataclass(frozen=True, slots=True)
class EntryAddress:
    """Where an entry says that its LoRA lies. All None where it says nothing."""

    place: Place | None = None
    problem: str | None = None
    """Why the address could not be resolved."""


def address_of(entry: Entry, rules: ObjectUrlRules) -> EntryAddress:
    """The object of `loraUrl`, however it is spelled."""
    url = entry.get("loraUrl")
    if url is None or url == "":
        return EntryAddress()
    try:
        parsed = parse_object_url(url, rules)
    except IdentityError as error:
        return EntryAddress(problem=str(error))
    if isinstance(parsed, ObjectAddress):
        return EntryAddress(Place(parsed.ref, parsed.version_id))
    assert isinstance(parsed, Unresolved)
    return EntryAddress(problem=f"{parsed.host}: {parsed.reason}")


def was_renamed(url: object, rules: ObjectUrlRules) -> bool:
    """Whether an address names its object as it was called before a folder was renamed."""
    if not rules.renames:
        return False
    entry = {"loraUrl": url}
    return address_of(entry, rules).place != address_of(entry, replace(rules, renames=())).place


class Addresses:
    """The places of many entries under the same rules: a folder's address is read once for all files in it.

    Reading an address is most of the work over a large tree, and a tree has a few folders in a few spellings.
    """

    def __init__(self, rules: ObjectUrlRules) -> None:
        self.rules = rules
        self._folders: dict[str, ObjectRef | None] = {}

    def place(self, entry: Entry) -> Place | None:
        """The same as `address_of(entry, rules).place`."""
        url = entry.get("loraUrl")
        if not isinstance(url, str):
            return address_of(entry, self.rules).place
        folder, _, name = url.rpartition("/")
        # Only what reads itself, whatever stands before it: no query, no escape, nothing that makes a key too long.
        if not _PLAIN_NAME.fullmatch(name) or len(url) > _SURELY_SHORT:
            return address_of(entry, self.rules).place
        if folder not in self._folders:
            self._folders[folder] = self._folder(folder)
        found = self._folders[folder]
        if found is None:
            return address_of(entry, self.rules).place
        return Place(ObjectRef(found.namespace, found.bucket, found.key + name))

    def _folder(self, folder: str) -> ObjectRef | None:
        """Where the files of a folder lie (its key ends in a slash or is empty); None where that is not so simple."""
        if _NOT_PLAIN.search(folder):
            return None
        place = address_of({"loraUrl": f"{folder}/{_ANY_NAME}"}, self.rules).place
        if place is None or place.object_version is not None or not place.ref.namespace.startswith("s3/"):
            return None
        prefix = place.ref.key.removesuffix(_ANY_NAME)
        simple = prefix != place.ref.key and (not prefix or prefix.endswith("/"))
        return ObjectRef(place.ref.namespace, place.ref.bucket, prefix) if simple else None


def strong_ids(entry: Entry, place: Place | None) -> StrongIds:
    """What the entry is known by, given the place that its address was resolved to."""
    job = job_of(entry.get("id"))
    status = entry.get("status")
    return StrongIds(
        jobs=frozenset() if job is None else frozenset((job,)),
        places=frozenset() if place is None else frozenset((place,)),
        outcome=status if isinstance(status, str) and status in ENDED else None,
        verdict=entry.get("isGood"),
    )


def moment(value: object) -> datetime | None:
    """A timestamp in any of the shapes met (`…sssZ`, `…+00:00`, `…ffffffZ`); None where it is none of them."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # in UTC it may lie before the year 1
        return None


def is_empty(value: object) -> bool:
    """Whether a value says nothing. False and 0 say something: a verdict, a count."""
    return not value and (value is None or value in ("", {}, []))
