"""One entry of a training_versions.json: what it is known by, when it was made, and how much it says.

Two writers made these entries. The webhook's has the provider's job as id and the training's parameters; the one
of a bucket listing has the file's name as id, empty parameters and `lastSynced`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_pipeline.identity import IdentityError, ObjectAddress, ObjectUrlRules, Unresolved, parse_object_url
from lora_pipeline.inventory.unifying import Place, StrongIds, job_of

Entry = Mapping[str, Any]

MERGED_IDS = "mergedIds"
"""Key of the surviving entry that lists the ids of those merged into it, so that each still leads somewhere."""
SYNCED = "Synced from S3"
"""The description that a bucket listing writes: no person's words."""
ENDED = frozenset({"completed", "failed"})


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


def strong_ids(entry: Entry, place: Place | None) -> StrongIds:
    """What the entry is known by, given the place that its address was resolved to."""
    job = job_of(entry.get("id"))
    status = entry.get("status")
    return StrongIds(
        jobs=frozenset() if job is None else frozenset((job,)),
        places=frozenset() if place is None else frozenset((place,)),
        outcome=status if isinstance(status, str) and status in ENDED else None,
    )


def moment(value: object) -> datetime | None:
    """A timestamp in any of the shapes met (`…sssZ`, `…+00:00`, `…ffffffZ`); None where it is none of them."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def is_empty(value: object) -> bool:
    """Whether a value says nothing. False and 0 say something: a verdict, a count."""
    return value is None or value in ("", {}, [])
