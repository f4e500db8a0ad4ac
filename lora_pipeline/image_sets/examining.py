"""One file read, hashed, inspected and stored: what the intake's threads do. Nothing here knows the database."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from threading import BoundedSemaphore

from lora_pipeline.image_sets.inspection import Inspection, inspect
from lora_pipeline.image_sets.names import path_segment
from lora_pipeline.image_sets.normalisation import Normalised
from lora_pipeline.image_sets.records import ImageRecord, NormalisedFile
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.objects import ObjectExists, ObjectNotFound, ObjectStoreError
from lora_pipeline.objects.store import ObjectStore

_IN_MEMORY = BoundedSemaphore(4)
_DECODING = BoundedSemaphore(2)
"""A picture has up to 100 MB as a file and 270 MB decoded: however many models are taken in at once in this process,
so many files are held and so many decoded at a time."""

MAX_FILE_BYTES = 100_000_000
"""Larger files are refused unread to their end: a 24-megapixel photograph has about 10 MB, a video has more."""


class FileRefused(Exception):
    """The file will never be taken in; the message says why and what to do."""


class FileUnavailable(Exception):
    """The file could not be read, or its copy not be stored, this time. Trying again may help."""


@dataclass(frozen=True)
class Examined:
    """A file whose original is stored. `record` is None where this content was known before."""

    source: ImageSource
    sha256: str
    size: int
    original_key: str
    caption: str | None
    record: ImageRecord | None


def examine(store: ObjectStore, user_id: str, source: ImageSource, known: Collection[str]) -> Examined:
    """Read the file once, keep its original, and store its normalised image. Safe to repeat after a crash.

    Objects are named by their content, so that doing it twice stores nothing twice. `known` are the SHA-256 of
    the user's images that need no second look. Raises FileRefused or FileUnavailable.
    """
    with _IN_MEMORY:
        return _examine(store, f"users/{path_segment(user_id)}", source, known)


def _examine(store: ObjectStore, folder: str, source: ImageSource, known: Collection[str]) -> Examined:
    try:
        data, caption = _read(source), source.read_caption()
    except (ObjectStoreError, OSError) as error:
        raise FileUnavailable(f"{source.name} could not be read. {_explained(error)}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    original_key = f"{folder}/originals/{sha256}"
    if sha256 in known:
        return Examined(source, sha256, len(data), original_key, caption, None)
    try:
        _store_once(store, original_key, data)
        with _DECODING:
            inspection = inspect(data)
        normalised = _store_normalised(store, folder, inspection.normalised)
    except (ObjectStoreError, OSError) as error:
        raise FileUnavailable(f"{source.name} could not be stored. {_explained(error)}") from error
    return Examined(source, sha256, len(data), original_key, caption, _record(inspection, normalised))


def _read(source: ImageSource) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for piece in source.open():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise FileRefused(
                f"{source.name} has more than {MAX_FILE_BYTES:,} bytes, which no photograph needs. "
                "Send the photograph itself instead of a video, an archive or a raw file"
            )
    return b"".join(pieces)


def _store_normalised(
    store: ObjectStore, folder: str, normalised: Normalised | None
) -> NormalisedFile | None:
    if normalised is None:
        return None
    # By its own hash: another version of the encoder makes other bytes of the same original.
    key = f"{folder}/normalised/{normalised.sha256}.jpg"
    _store_once(store, key, normalised.data, "image/jpeg")
    return NormalisedFile(key, normalised.sha256, normalised.crc32, normalised.size)


def _store_once(store: ObjectStore, key: str, data: bytes, content_type: str | None = None) -> None:
    try:
        store.put_bytes(key, data, create_only=True, content_type=content_type)
    except ObjectExists:
        return


def _record(inspection: Inspection, normalised: NormalisedFile | None) -> ImageRecord:
    return ImageRecord(
        sha256=inspection.sha256,
        format=inspection.format,
        width=inspection.width,
        height=inspection.height,
        captured_on=inspection.captured_on,
        phash=inspection.phash,
        phash_mirror=inspection.phash_mirror,
        sharpness=inspection.sharpness,
        findings=inspection.findings,
        normalised=normalised,
    )


def _explained(error: ObjectStoreError | OSError) -> str:
    if isinstance(error, ObjectNotFound | FileNotFoundError):
        return "It is no longer there: put it back, or leave it"
    return str(error)
