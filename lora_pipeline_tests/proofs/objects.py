"""An object store in memory, for the schedules of a proof: every write is a step boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from lora_pipeline.objects import ObjectInfo
from lora_pipeline.objects.errors import ObjectExists, ObjectNotFound, StoreUnavailable
from lora_pipeline.objects.store import READ_SIZE, Chunks
from lora_pipeline_tests.proofs.steps import Steps


class MemoryStore:
    """Objects in a mapping that is replaced at each write, so that a copy of the whole store is free."""

    root = "s3://proofs"

    def __init__(self, clock: Callable[[], datetime], steps: Steps, *, can_presign: bool) -> None:
        self.content: Mapping[str, bytes] = MappingProxyType({})
        self.can_presign = can_presign
        self.unavailable = 0
        """So many of the next writes fail."""
        self._clock, self._steps = clock, steps

    def address(self, key: str) -> str:
        return f"{self.root}/{key}"

    def key_of(self, address: str) -> str | None:
        return address.removeprefix(f"{self.root}/") if address.startswith(f"{self.root}/") else None

    def put_bytes(
        self,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self._steps.reach("before an object is written")
        if self.unavailable > 0:
            self.unavailable -= 1
            raise StoreUnavailable(self.address(key), "the store did not answer", "Try again")
        if create_only and key in self.content:
            raise ObjectExists(self.address(key), "it exists", "Nothing was changed")
        self.content = MappingProxyType({**self.content, key: data})
        self._steps.done("an object was written")

    def put_stream(
        self,
        key: str,
        chunks: Chunks,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.put_bytes(key, b"".join(chunks), create_only=create_only)

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.put_bytes(key, path.read_bytes(), create_only=create_only)

    def get_bytes(self, key: str) -> bytes:
        self._steps.reach("before an object is read")
        if key not in self.content:
            raise ObjectNotFound(self.address(key), "there is no such object", "Look for it")
        return self.content[key]

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get_bytes(key)[start : start + length]

    def stream(self, key: str, chunk_size: int = READ_SIZE) -> Iterator[bytes]:
        return iter([self.get_bytes(key)])

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.get_bytes(key))

    def head(self, key: str) -> ObjectInfo:
        data = self.get_bytes(key)
        return ObjectInfo(key, len(data), hashlib.md5(data).hexdigest(), self._clock())

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (self.head(key) for key in sorted(self.content) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._steps.reach("before an object is deleted")
        self.content = MappingProxyType({name: data for name, data in self.content.items() if name != key})
        self._steps.done("an object was deleted")

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def presign_get(self, key: str, expires: timedelta) -> str | None:
        return f"https://proofs.invalid/{key}?signature=secret" if self.can_presign else None
