"""A listing as it comes from S3, read page by page into complete stretches of keys. Rules only.

A stretch is what may be compared with what is stored: every object with a key after the last stretch's end, up to
its own, is in it. So nothing is taken for deleted because a listing stopped, and nothing has to be filtered by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

LORA_ENDING = ".safetensors"
NULL_VERSION = "null"
"""What S3 calls the version of an object that was there before its bucket kept versions."""


class ListedFile(NamedTuple):
    """A LoRA file in a listing: these bytes under this key."""

    key: str
    object_version: str
    etag: str
    size: int
    modified: datetime
    overwritten_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def is_current(self) -> bool:
        """Whether its key leads to it now."""
        return self.overwritten_at is None and self.deleted_at is None


@dataclass(frozen=True, slots=True)
class Stretch:
    """All that is listed up to a key."""

    upto: str | None
    """The last key of it; None where the listing ends here."""
    files: Sequence[ListedFile]
    others: int
    """Objects in it that are no LoRA files."""


class DisorderedListing(Exception):
    """A listing that is not in the order of its keys, with which nothing can be compared."""


def stretches(pages: Iterable[Mapping[str, Any]], after: str) -> Iterator[Stretch]:
    """Of a listing of objects (ListObjectsV2): one a page."""
    last = after
    for page in pages:
        contents: Sequence[Mapping[str, Any]] = page.get("Contents", ())
        complete = not page["IsTruncated"]
        if contents:
            keys = [entry["Key"] for entry in contents]
            _check_order(last, keys)
            last = keys[-1]
        elif not complete:
            continue
        files = [
            ListedFile(entry["Key"], "", entry["ETag"], entry["Size"], entry["LastModified"])
            for entry in contents
            if is_lora_file(entry["Key"])
        ]
        yield Stretch(None if complete else last, files, len(contents) - len(files))


def version_stretches(pages: Iterable[Mapping[str, Any]], after: str) -> Iterator[Stretch]:
    """Of a listing of object versions (ListObjectVersions): one a page, cut before a key that may go on behind it."""
    last = after
    open_key: _Key | None = None
    for page in pages:
        keys: dict[str, _Key] = {} if open_key is None else {open_key.name: open_key}
        for entry in page.get("Versions", ()):
            _of(keys, entry["Key"]).versions.append(entry)
        for entry in page.get("DeleteMarkers", ()):
            marked = _of(keys, entry["Key"])
            if entry["IsLatest"]:
                marked.deleted_at = entry["LastModified"]
        # Python compares code points, which is the order of UTF-8's bytes, and S3's.
        found = [keys[name] for name in sorted(keys)]
        # A server may repeat older versions of the key that a listing goes on behind: they were dealt with.
        found = [key for key in found if key.name > after]
        complete = not page["IsTruncated"]
        open_key = None if complete or not found else found.pop()
        if not complete and not found:
            continue
        _check_order(last, [key.name for key in found])
        last = found[-1].name if found else last
        files = [file for key in found for file in key.files()]
        seen = sum(len(key.versions) for key in found)
        yield Stretch(None if complete else last, files, seen - len(files))


def is_lora_file(key: str) -> bool:
    """Whether the inventory is about this object. A NUL is a key that no database takes and no LoRA has."""
    return key[-len(LORA_ENDING) :].lower() == LORA_ENDING and "\0" not in key


@dataclass(slots=True)
class _Key:
    """One key's versions, newest first, as far as they came."""

    name: str
    versions: list[Mapping[str, Any]] = field(default_factory=list)
    deleted_at: datetime | None = None
    """When the delete marker was set that hides them; None where there is none."""

    def files(self) -> Iterator[ListedFile]:
        if not is_lora_file(self.name):
            return
        newer: datetime | None = None
        for entry in self.versions:
            version = entry["VersionId"]
            yield ListedFile(
                self.name,
                "" if version == NULL_VERSION else version,
                entry["ETag"],
                entry["Size"],
                entry["LastModified"],
                newer,
                self.deleted_at if newer is None else None,
            )
            newer = entry["LastModified"]


def _of(keys: dict[str, _Key], name: str) -> _Key:
    found = keys.get(name)
    if found is None:
        found = keys[name] = _Key(name)
    return found


def _check_order(last: str, keys: Sequence[str]) -> None:
    for key in keys:
        if key <= last:
            raise DisorderedListing(
                f"the key {key!r} is listed after {last!r}: expected the order of their UTF-8 bytes, as every bucket "
                "has it except S3's directory buckets, which cannot be inventoried"
            )
        last = key
