"""The interface that every object store of ours offers, and the record it answers with."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

READ_SIZE = 1024 * 1024
"""Bytes per piece when streaming: large enough to be fast, small enough to forget."""

Chunks = Iterable[bytes] | BinaryIO
"""What a streaming write takes: pieces of bytes, or a file open for reading in binary mode."""

MAX_PRESIGN = timedelta(days=7)
"""The longest life that S3's signature version 4 allows a presigned URL."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows about one object without reading it.

    ``etag`` and ``version`` tell that an object changed; they are never its identity. ``metadata`` is filled by
    ``head`` only: no store returns it in a listing.
    """

    key: str
    size: int
    etag: str | None
    last_modified: datetime
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """Bytes under keys. Every method raises only ObjectStoreError (and what a caller's own iterable raises)."""

    @property
    def root(self) -> str:
        """The address of the store itself: ``s3://bucket/prefix`` or ``file:///folder``."""
        ...

    @property
    def can_presign(self) -> bool:
        """Whether ``presign_get`` gives URLs: true for S3, false for a local folder."""
        ...

    def address(self, key: str) -> str:
        """The object's lasting address, fit for the database: ``s3://bucket/key`` or ``file:///folder/key``."""
        ...

    def key_of(self, address: str) -> str | None:
        """The key that ``address`` has here, or None where it lies outside this store."""
        ...

    def put_bytes(
        self,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Store ``data``; readers see all of it or nothing. ``create_only`` raises ObjectExists if the key is taken."""
        ...

    def put_stream(
        self,
        key: str,
        chunks: Chunks,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Store a stream of any length in bounded memory. If the stream raises, nothing is stored.

        ``create_only`` is decided by the store itself up to one part (8 MiB); above that S3 is asked just before
        the upload begins, so two writers at the same moment both succeed. Give large objects keys made of their
        content, and it makes no difference which of them won.
        """
        ...

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Store the file at ``path``, in bounded memory."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """The whole object."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``start``: fewer where the object ends, none where it has ended before."""
        ...

    def stream(self, key: str, chunk_size: int = READ_SIZE) -> Iterator[bytes]:
        """The object in pieces of about ``chunk_size``; a missing object raises here, not at the first piece."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy the object to ``path`` (0600), which appears complete or not at all."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """What is known of one object, user metadata included."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below the folder ``prefix``, page by page, in the order of their keys.

        ``users/1`` lists what lies in ``users/1/`` and never ``users/10/…``.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is already gone is no error."""
        ...

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove all of ``keys`` in as few requests as the store allows."""
        ...

    def presign_get(self, key: str, expires: timedelta) -> str | None:
        """A URL that reads the object until it expires (at most 7 days), or None where the store cannot sign.

        It is a bearer secret: hand it over, never store, log or show it.
        """
        ...
