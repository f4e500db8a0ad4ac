"""An entry of an old file as it is loaded: what it is known by, when it ended, and what may be kept of it. Pure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from lora_pipeline.identity import IdentityError, ObjectUrlRules, job_of, object_uri, parse_version_name
from lora_pipeline.identity.errors import without_secrets
from lora_pipeline.inventory.entries import (
    MERGED_IDS,
    Entry,
    address_of,
    moment,
    strong_ids,
    was_renamed,
)
from lora_pipeline.inventory.entry_defects import LOCAL_TIME, is_two_hours_ahead
from lora_pipeline.inventory.survivors import is_signed
from lora_pipeline.inventory.unifying import StrongIds

_LONGEST_ALIAS = 1100
_MOST_IMAGES = 2**31 - 1


@dataclass(frozen=True)
class ImportedEntry:
    """An entry as it is loaded, with what other entries of its file say about it."""

    entry: Entry
    path: str
    rules: ObjectUrlRules
    written_at: datetime | None
    """When the bucket says that its object was written."""
    highest_named: int = 0
    """The highest version number that a name in its file has: free numbers begin behind it."""

    @property
    def id(self) -> str:
        return str(self.entry["id"]).strip()

    @property
    def source(self) -> str:
        """Where its values come from, for a version's provenance."""
        return f"{self.path} entry {self.id}"

    @property
    def status(self) -> object:
        return self.entry.get("status")

    @property
    def ids(self) -> list[str]:
        """Its id and those merged into it."""
        merged = self.entry.get(MERGED_IDS)
        return [
            self.id,
            *(one for one in (merged if isinstance(merged, list) else ()) if isinstance(one, str)),
        ]

    @cached_property
    def known_by(self) -> StrongIds:
        own = strong_ids(self.entry, address_of(self.entry, self.rules).place)
        jobs = frozenset(job for one in self.ids if (job := job_of(one)) is not None)
        # A completed entry is a version, and a version has no outcome that could contradict it.
        return replace(own, jobs=jobs, outcome=None, verdict=self.is_good)

    @cached_property
    def sure_names(self) -> list[tuple[str, str]]:
        """(kind, alias) of what surely means the entry's version."""
        jobs = sorted(self.known_by.jobs, key=lambda job: job.text)
        names = [("training_id", f"{job.provider}:{job.text}") for job in jobs]
        for place in self.known_by.places:
            with suppress(IdentityError):
                names.append(("object", object_uri(place.ref, self.rules)))
        return names

    @property
    def old_ids(self) -> list[str]:
        """Its ids that are names of files."""
        return [one[:_LONGEST_ALIAS] for one in self.ids if job_of(one) is None]

    @property
    def parameters(self) -> dict[str, Any]:
        found = self.entry.get("parameters")
        return dict(found) if isinstance(found, dict) else {}

    @property
    def trigger_word(self) -> str | None:
        word = self.parameters.get("class_tokens")
        return word if isinstance(word, str) and 0 < len(word) <= 64 else None

    @property
    def started_at(self) -> datetime | None:
        return moment(self.entry.get("timestamp"))

    @property
    def told_end(self) -> datetime | None:
        """When it ended, as the entry itself says."""
        return moment(self.entry.get("completedAt")) or moment(self.entry.get("failedAt"))

    @property
    def ended_at(self) -> datetime | None:
        """When it ended: told by the entry, set right where that was local time, else by the bucket, else its start."""
        told = self.told_end
        if told is not None:
            return told - LOCAL_TIME if is_two_hours_ahead(told, self.written_at) else told
        return self.written_at or self.started_at

    @property
    def last_synced_at(self) -> datetime | None:
        return moment(self.entry.get("lastSynced"))

    @property
    def is_good(self) -> bool | None:
        verdict = self.entry.get("isGood")
        return verdict if isinstance(verdict, bool) else None

    @property
    def image_count(self) -> int | None:
        count = self.entry.get("imageCount")
        fits = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= _MOST_IMAGES
        return count if fits else None

    @property
    def has_address(self) -> bool:
        url = self.entry.get("loraUrl")
        return isinstance(url, str) and bool(url.strip())

    @property
    def weights_url(self) -> str | None:
        """Where the weights lie: word for word, unsigned, or under today's name where the folder was renamed."""
        if not self.has_address:
            return None
        if was_renamed(self.entry.get("loraUrl"), self.rules):
            place = address_of(self.entry, self.rules).place
            assert place is not None
            return object_uri(place.ref, self.rules)
        return str(self.unsigned["loraUrl"])

    @cached_property
    def unsigned(self) -> Entry:
        """The entry as it may be kept: an address without its signature."""
        url = self.entry.get("loraUrl")
        return {**self.entry, "loraUrl": without_secrets(str(url))} if is_signed(url) else self.entry

    @property
    def number(self) -> int | None:
        """The version number in its name, or in its id."""
        return named_number(self.entry)


def named_number(entry: Entry) -> int | None:
    """The version number in an entry's name, or in its id."""
    for text in (entry.get("name"), entry["id"]):
        try:
            return parse_version_name(str(text or ""))
        except IdentityError:
            continue
    return None
