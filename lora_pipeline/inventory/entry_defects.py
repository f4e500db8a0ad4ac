"""What is wrong with the entries of a training_versions.json: told before anything is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lora_pipeline.identity import IdentityError, ObjectRef, ObjectUrlRules, parse_version_name
from lora_pipeline.identity.errors import shown
from lora_pipeline.inventory.entries import Entry, address_of, has_id, is_empty, moment, was_renamed
from lora_pipeline.inventory.survivors import is_signed

STUCK_AFTER = timedelta(hours=24)
"""No training takes a day: an entry pending for longer was forgotten (webhook lost, job expired)."""
LOCAL_TIME = timedelta(hours=2)
_LOCAL_TIME_SLACK = timedelta(minutes=2)
_TIMES = ("timestamp", "completedAt", "failedAt", "lastSynced")

_CHOICES = {
    "optimizer_type": {"adamw", "adamw8bit", "adafactor", "lion", "lion8bit", "prodigy"},
    "gradient_dtype": {"bf16", "fp16"},
    "lr_scheduler": {
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_with_restarts",
        "linear",
        "polynomial",
    },
}


@dataclass(frozen=True, slots=True)
class Defect:
    """Something that an old record says wrongly, or does not say."""

    where: str
    """The record: an entry's id, a table and its row."""
    kind: str
    what: str
    """What is wrong, and what becomes of it."""


def entry_defects(entries: Sequence[Any], rules: ObjectUrlRules, now: datetime) -> list[Defect]:
    """Every defect of one file's entries, in their order. Entries without an id are told by their place."""
    found: list[Defect] = []
    sound = []
    for index, entry in enumerate(entries):
        if not has_id(entry):
            found.append(Defect(f"entry {index + 1}", "no_id", "no object with an id; it is not loaded"))
            continue
        sound.append(entry)
        found += [Defect(entry["id"], kind, what) for kind, what in _of_entry(entry, rules, now)]
    written = written_times(sound, rules)
    for entry in sound if written else ():
        place = address_of(entry, rules).place
        if place is not None and is_two_hours_ahead(moment(entry.get("completedAt")), written.get(place.ref)):
            what = "completedAt is two hours ahead of the file: local time labelled UTC; loaded two hours earlier"
            found.append(Defect(entry["id"], "local_time", what))
    return found


def is_two_hours_ahead(told: datetime | None, evidence: datetime | None) -> bool:
    """Whether a time was written as local time and labelled UTC, by what the bucket or another table says."""
    return (
        told is not None and evidence is not None and abs(told - evidence - LOCAL_TIME) <= _LOCAL_TIME_SLACK
    )


def written_times(entries: Sequence[Entry], rules: ObjectUrlRules) -> dict[ObjectRef, datetime]:
    """When the bucket says that each object was written: the timestamps of the listing's entries."""
    found = {}
    for entry in entries:
        if not is_empty(entry.get("lastSynced")) and is_empty(entry.get("completedAt")):
            place, written = address_of(entry, rules).place, moment(entry.get("timestamp"))
            if place is not None and written is not None:
                found[place.ref] = written
    return found


def _of_entry(entry: Entry, rules: ObjectUrlRules, now: datetime) -> Iterator[tuple[str, str]]:
    yield from _of_status(entry, now)
    yield from _of_address(entry, rules)
    for key in _TIMES:
        if not is_empty(entry.get(key)) and moment(entry[key]) is None:
            yield "unreadable_time", f"{key} {shown(entry[key])} is no time; it counts as unknown"
    if is_empty(entry.get("timestamp")):
        yield "no_timestamp", "no timestamp; when it was made counts as unknown"
    if not isinstance(entry.get("isGood"), bool | None):
        yield "odd_verdict", f"isGood {shown(entry['isGood'])} is neither true nor false; it counts as none"
    yield from _of_parameters(entry)


def _of_parameters(entry: Entry) -> Iterator[tuple[str, str]]:
    parameters = entry.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        yield "no_parameters", "nothing is said of its training; a bucket's listing writes such entries"
    for key, known in _CHOICES.items():
        value = parameters.get(key) if isinstance(parameters, dict) else None
        if value is not None and (not isinstance(value, str) or value not in known):
            yield (
                "odd_parameter",
                f"{key} {shown(value)} is none of {', '.join(sorted(known))}; kept as it is",
            )


def _of_status(entry: Entry, now: datetime) -> Iterator[tuple[str, str]]:
    status = entry.get("status")
    if status == "completed":
        if is_empty(entry.get("completedAt")):
            yield "no_completed_at", "completed without completedAt; its timestamp stands in"
        if is_empty(entry.get("loraUrl")):
            yield "no_weights", "completed without loraUrl; registered as missing its weights"
        try:
            parse_version_name(str(entry.get("name") or ""))
        except IdentityError:
            yield (
                "no_number",
                f"the name {shown(entry.get('name'))} has no version number; the next free one is given",
            )
    elif status == "failed":
        if is_empty(entry.get("failedAt")):
            yield "no_failed_at", "failed without failedAt; its timestamp stands in"
        if entry.get("error") in (None, "", "Training failed"):
            yield "no_reason", "failed without a reason"
    elif status == "pending":
        started = moment(entry.get("timestamp"))
        if started is None or now - started > STUCK_AFTER:
            yield "stuck_pending", f"pending since {shown(entry.get('timestamp'))}; loaded as aborted"
        else:
            yield "still_pending", "may still be training; not loaded, import again when it has ended"
    else:
        got = "no status; expected" if status is None else f"status {shown(status)} is none of"
        yield "odd_status", f"{got} completed, failed or pending; not loaded"


def _of_address(entry: Entry, rules: ObjectUrlRules) -> Iterator[tuple[str, str]]:
    address = address_of(entry, rules)
    if address.problem is not None:
        yield "unresolved_address", f"loraUrl cannot be resolved: {address.problem}"
    if is_signed(entry.get("loraUrl")):
        yield "signed_address", "loraUrl is presigned and dead by now; loaded without its signature"
    if was_renamed(entry.get("loraUrl"), rules):
        yield "renamed_prefix", "loraUrl names a folder that was renamed since; loaded under its new name"
