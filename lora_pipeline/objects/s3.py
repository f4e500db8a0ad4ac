"""The object store in an S3 bucket: AWS, or any endpoint that speaks S3, through obstore."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from lora_pipeline.objects.chunks import ChunkSource
from lora_pipeline.objects.download import save_download
from lora_pipeline.objects.errors import InvalidKey, ObjectExists, ObjectNotFound
from lora_pipeline.objects.keys import check_key, check_metadata, check_prefix
from lora_pipeline.objects.s3_errors import explain_s3_error, range_is_past_the_end
from lora_pipeline.objects.store import MAX_PRESIGN, READ_SIZE, Chunks, ObjectInfo

if TYPE_CHECKING:
    from obstore import Attributes, ObjectMeta, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config

PART_SIZE = 8 * 1024 * 1024
"""Bytes of one part of a multipart upload. S3 allows 10,000 parts, so an object may have 80 GiB."""

PARTS_AT_ONCE = 4
"""With PART_SIZE this bounds an upload's memory near 40 MiB and still fills a fast line."""

RETRIES: "RetryConfig" = {
    # An endpoint that is down must show itself within seconds, not after obstore's own three minutes: a sensor
    # tick lasts 60 s, and whoever asked tries again anyway. A short hiccup (503, reset) is still ridden out.
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=6),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}

CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=3),
    # Four parts of 8 MiB at once need 0.6 MB/s to get through within this; it ends connections gone silent.
    "read_timeout": timedelta(seconds=60),
    # obstore's own 30 s would cut off every long download; silence is what read_timeout is for.
    "timeout": timedelta(hours=12),
}

_DELETE_BATCH = 1000  # S3's limit for one DeleteObjects request


class S3ObjectStore:
    """An ObjectStore (see store.py) below ``prefix`` in an S3 bucket.

    A process that dies in the middle of a large upload leaves its parts behind, invisible but billed: give the
    bucket a lifecycle rule that aborts incomplete multipart uploads.
    """

    can_presign = True

    def __init__(
        self, bucket: str, prefix: str, endpoint_url: str | None, config: "S3Config", **store: Any
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._endpoint = endpoint_url
        client: ClientConfig = {**CLIENT, "allow_http": (endpoint_url or "").startswith("http://")}

        def connect(**more: Any) -> S3Store:
            return S3Store(
                bucket,
                prefix=prefix or None,
                config=config,
                client_options=client,
                retry_config=RETRIES,
                **store,
                **more,
            )

        self._store = connect()
        # Hashing every part for its signature takes as long as all the rest of a fast upload. What is large here
        # carries its own proof, which is checked where it is read: the ZIP's CRCs, the weights' hash.
        self._unhashed = connect(unsigned_payload=True)

    def address(self, key: str) -> str:
        return f"{self.root}/{check_key(key)}"

    def key_of(self, address: str) -> str | None:
        key = address.removeprefix(f"{self.root}/")
        try:
            return None if key == address else check_key(key)
        except InvalidKey:
            return None

    def put_bytes(
        self,
        key: str,
        data: bytes,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.put_stream(
            key, BytesIO(data), create_only=create_only, metadata=metadata, content_type=content_type
        )

    def put_file(
        self,
        key: str,
        path: Path,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        with path.open("rb") as file:
            self.put_stream(key, file, create_only=create_only, metadata=metadata, content_type=content_type)

    def put_stream(
        self,
        key: str,
        chunks: Chunks,
        *,
        create_only: bool = False,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        check_key(key)
        attributes: Attributes = check_metadata(metadata)
        if content_type is not None:
            attributes["Content-Type"] = content_type
        source = ChunkSource(chunks)
        first, complete = source.up_to(PART_SIZE)
        with self._explained(key, source):
            if complete:
                mode: PutMode = "create" if create_only else "overwrite"
                obstore.put(self._store, key, first, attributes=attributes, mode=mode, use_multipart=False)
                return
            # obstore makes a multipart upload conditional only by holding the whole object in memory.
            if create_only and self._exists(key):
                raise ObjectExists(self.address(key), "an object with this key exists", "Use another key")
            obstore.put(
                self._unhashed,
                key,
                chain([first], source),
                attributes=attributes,
                use_multipart=True,
                chunk_size=PART_SIZE,
                max_concurrency=PARTS_AT_ONCE,
            )

    def get_bytes(self, key: str) -> bytes:
        check_key(key)
        with self._explained(key):
            return bytes(obstore.get(self._store, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_key(key)
        if length == 0:
            return b""
        with self._explained(key):
            try:
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
            except BaseError as error:
                if range_is_past_the_end(error):
                    return b""
                raise

    def stream(self, key: str, chunk_size: int = READ_SIZE) -> Iterator[bytes]:
        check_key(key)
        with self._explained(key):
            pieces = iter(obstore.get(self._store, key).stream(min_chunk_size=chunk_size))
        return self._pieces(key, pieces)

    def _pieces(self, key: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            with self._explained(key):
                piece = next(pieces, None)
            if piece is None:
                return
            yield bytes(piece)

    def download(self, key: str, path: Path) -> None:
        save_download(path, self.stream(key))

    def head(self, key: str) -> ObjectInfo:
        check_key(key)
        with self._explained(key):
            result = obstore.get(self._store, key, options={"head": True})
            metadata = {name: value for name, value in result.attributes.items() if name == name.lower()}
            return _info(result.meta, metadata)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """As in the interface. Raises StoreRefused at a key that this client cannot address, such as ``a//b``:
        a bucket filled by others is listed by the inventory, key for key."""
        folder = check_prefix(prefix)
        pages = iter(obstore.list(self._store, folder or None))
        return self._listed(folder, pages)

    def _listed(self, folder: str, pages: "Iterator[Iterable[ObjectMeta]]") -> Iterator[ObjectInfo]:
        while True:
            with self._explained(folder):
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                if meta["size"] or not self._is_folder_marker(folder, meta["path"]):
                    yield _info(meta, {})

    def _is_folder_marker(self, folder: str, path: str) -> bool:
        """Whether an empty object is the ``photos/`` that consoles store for a folder.

        obstore drops the closing slash, so that only asking for the object tells the two apart.
        """
        return path in (folder, "") or not self._exists(path)

    def _exists(self, key: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Iterable[str]) -> None:
        checked = [check_key(key) for key in keys]
        for start in range(0, len(checked), _DELETE_BATCH):
            batch = checked[start : start + _DELETE_BATCH]
            with self._explained(batch[0]):
                obstore.delete(self._store, batch if len(batch) > 1 else batch[0])

    def presign_get(self, key: str, expires: timedelta) -> str | None:
        check_key(key)
        if not timedelta(0) < expires <= MAX_PRESIGN:
            raise ValueError(
                f"A presigned URL lives between 0 and 7 days, not {expires}. Ask for another one later"
            )
        with self._explained(key):
            return obstore.sign(self._store, "GET", key, expires)

    @contextmanager
    def _explained(self, key: str, source: ChunkSource | None = None) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError, NotImplementedError) as error:
            if source is not None and source.error is not None:
                raise source.error from source.error.__cause__
            # "from None": obstore's text holds the server's raw answer.
            raise explain_s3_error(error, f"{self.root}/{key}", self.bucket, self._endpoint) from None


def _info(meta: "ObjectMeta", metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(
        key=meta["path"],
        size=meta["size"],
        etag=meta["e_tag"],
        last_modified=meta["last_modified"],
        version=meta["version"],
        metadata=metadata,
    )
