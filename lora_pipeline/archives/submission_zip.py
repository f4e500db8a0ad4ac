"""Storing a training ZIP for a submission, under a key that proves whose it is and what it holds."""

import re
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from lora_pipeline.archives.entries import TrainingZipEntry, TrainingZipError
from lora_pipeline.archives.zip_format import zip_size, zip_stream
from lora_pipeline.objects import ObjectExists, ObjectStore, ObjectStoreError

HELD_ZIP_BYTES = 32 * 1024 * 1024
"""A ZIP up to this size (some twenty photos, the usual set) is held in memory, so that each photo is read once."""

PIECES_AHEAD = 8
"""Pieces (of about 1 MiB) read before they are hashed."""


@dataclass(frozen=True)
class StoredZip:
    """A training ZIP in the store. ``address`` is lasting; what a provider gets is a presigned URL of ``key``."""

    key: str
    address: str
    sha256: str
    size: int
    names: tuple[str, ...]
    created: bool
    """False where the very same ZIP was there already, from an attempt that was cut short."""


def submission_prefix(token: str) -> str:
    """The folder of everything stored for one submission: what is deleted once its training has ended."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", token):
        raise ValueError(f"The submission's token is {token!r}. It has to be letters, digits, '_' or '-'")
    return f"submissions/{token}"


def submission_zip_key(token: str, digest: str) -> str:
    """The key of the submission's ZIP with this SHA-256: the token is matched in the URL that a provider echoes."""
    return f"{submission_prefix(token)}/{digest}.zip"


def store_training_zip(store: ObjectStore, token: str, entries: Iterable[TrainingZipEntry]) -> StoredZip:
    """Write the ZIP of ``entries`` to the store, create-only, in flat memory whatever its size.

    The hash is part of the key and so comes first: a ZIP too large to hold is made twice, once to be hashed and once
    to be sent, and must come out the same. One that is already there is a success.
    Raises TrainingZipError, whatever went wrong.
    """
    entries = list(entries)
    size = zip_size(entries)
    digest, pieces = _hashed(entries, size)
    key = submission_zip_key(token, digest)
    try:
        created = _create(store, key, pieces, size)
    except ObjectStoreError as error:
        raise TrainingZipError(
            f"it cannot be stored at {error.address}: {error.cause}", error.remedy
        ) from error
    names = tuple(sorted(entry.name for entry in entries))
    return StoredZip(key, store.address(key), digest, size, names, created)


def _hashed(entries: list[TrainingZipEntry], size: int) -> tuple[str, Iterable[bytes]]:
    if size <= HELD_ZIP_BYTES:
        held = list(zip_stream(entries))
        return _sha256(held), held
    measured: list[TrainingZipEntry] = []
    return _sha256(zip_stream(entries, measured)), zip_stream(measured)


def _sha256(pieces: Iterable[bytes]) -> str:
    """Hash in a second thread, so that it overlaps with reading and CRC (all three leave Python's lock)."""
    digest = sha256()
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="zip-sha256") as hasher:
        for piece in pieces:
            waiting.append(hasher.submit(digest.update, piece))
            if len(waiting) > PIECES_AHEAD:
                waiting.popleft().result()
    return digest.hexdigest()


def _create(store: ObjectStore, key: str, pieces: Iterable[bytes], size: int) -> bool:
    try:
        store.put_stream(key, pieces, create_only=True, content_type="application/zip")
    except ObjectExists:
        found = store.head(key).size
        if found != size:
            raise TrainingZipError(
                f"{store.address(key)} has {found:,} bytes, not the {size:,} that its name promises",
                "Something else wrote it: delete that object",
            ) from None
        return False
    return True
