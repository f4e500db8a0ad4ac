"""A bucket as the inventory reads it: key for key as it lists them, with the versions of its objects.

Nothing is written to it; only an erasure deletes, and then every version.

boto3 rather than our object store: a bucket filled by others has keys that no folder could hold, and only S3's own
interface tells object versions. It is built from the same settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_pipeline.inventory.bucket_listing import NULL_VERSION
from lora_pipeline.objects.errors import StoreRefused

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

READ_SIZE = 1024 * 1024
_ATTEMPTS = 3
_CONNECT_S, _READ_S = 3, 20
_FORBIDDEN = frozenset({"AccessDenied", "403"})
_VERSIONS_HIDDEN = _FORBIDDEN | {"NotImplemented", "MethodNotAllowed", "405", "501"}
_DELETED_AT_ONCE = 1000


class ObjectAt(NamedTuple):
    """One object, or one version of it, with the ETag that tells whether it is still the one that was listed."""

    key: str
    object_version: str
    etag: str
    is_current: bool


class Beginning(NamedTuple):
    """The first bytes of an object, and what was written beside it."""

    content: bytes
    metadata: Mapping[str, str]
    """Names in lower case."""


class Bucket:
    """One bucket. Safe for several threads. Every method raises only ObjectStoreError."""

    def __init__(self, name: str, client: S3Client, endpoint_url: str | None) -> None:
        self.name = name
        self._client = client
        self._endpoint = endpoint_url
        self._keeps_versions: bool | None = None
        self.hides_versions = False
        """Whether it may have older versions that these credentials cannot see. Known once it was asked."""

    def keeps_versions(self) -> bool:
        """Whether older versions of its objects can be listed. Asked once."""
        if self._keeps_versions is None:
            self._keeps_versions = self._ask_for_versions()
        return self._keeps_versions

    def pages(self, prefix: str, after: str) -> Iterator[Mapping[str, Any]]:
        """The answers of a listing behind the key `after`, as `bucket_listing` reads them."""
        if self.keeps_versions():
            yield from self._version_pages(prefix, after)
            return
        start: Any = {"StartAfter": after} if after else {}
        while True:
            with self._explained(prefix):
                page = self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, **start)
            yield page
            if not page["IsTruncated"]:
                return
            start = {"ContinuationToken": page["NextContinuationToken"]}

    def begin(self, at: ObjectAt, length: int) -> Beginning:
        """Up to `length` bytes from its start, with its user metadata. Raises ObjectChanged where it is another now."""
        with self._explained(at.key):
            answer = self._get(at, f"bytes=0-{length - 1}")
            content = answer["Body"].read()
        return Beginning(content, {name.lower(): text for name, text in answer["Metadata"].items()})

    def part(self, at: ObjectAt, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`."""
        with self._explained(at.key):
            content: bytes = self._get(at, f"bytes={start}-{start + length - 1}")["Body"].read()
        return content

    def rest(self, at: ObjectAt, start: int) -> Iterator[bytes]:
        """The object from byte `start` on, in pieces."""
        with self._explained(at.key):
            pieces = self._get(at, f"bytes={start}-")["Body"].iter_chunks(READ_SIZE)
            while (piece := next(pieces, None)) is not None:
                yield piece

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key with this prefix that leads to something, be it an older version behind a deletion."""
        for page in self.pages(prefix, ""):
            found = (page.get(name, ()) for name in ("Contents", "Versions", "DeleteMarkers"))
            yield from sorted({one["Key"] for listed in found for one in listed})

    def delete_for_good(self, key: str) -> bool:
        """Delete the object with all its versions and deletion markers; whether there was anything."""
        if not self.keeps_versions():
            with self._explained(key):
                there = self._exists(key)
                self._client.delete_object(Bucket=self.name, Key=key)
            return there
        versions: list[Any] = []
        for page in self._version_pages(key, ""):
            found = (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            versions += [{"Key": key, "VersionId": one["VersionId"]} for one in found if one["Key"] == key]
        for start in range(0, len(versions), _DELETED_AT_ONCE):
            batch: Any = {"Objects": versions[start : start + _DELETED_AT_ONCE], "Quiet": True}
            with self._explained(key):
                answer = self._client.delete_objects(Bucket=self.name, Delete=batch)
            if refused := answer.get("Errors"):
                code = refused[0].get("Code", "an error")
                raise StoreRefused(
                    f"s3://{self.name}/{key}", f"S3 answered {code}", "Allow s3:DeleteObjectVersion"
                )
        return bool(versions)

    def delete_version(self, key: str, version: str) -> bool:
        """Delete one version of the object and leave the others; whether it was there."""
        with self._explained(key):
            there = self._exists(key, VersionId=version)
            self._client.delete_object(Bucket=self.name, Key=key, VersionId=version)
        return there

    def _exists(self, key: str, **version: Any) -> bool:
        from botocore.exceptions import ClientError

        from lora_pipeline.inventory.bucket_errors import error_code

        try:
            self._client.head_object(Bucket=self.name, Key=key, **version)
        except ClientError as error:
            if error_code(error) in ("404", "NoSuchKey", "NoSuchVersion", "NotFound"):
                return False
            raise
        return True

    def _get(self, at: ObjectAt, byte_range: str) -> Any:
        version: Any = {}
        if at.object_version or not at.is_current:
            version = {"VersionId": at.object_version or NULL_VERSION}
        # The ETag ties every read to the bytes that were listed, whoever writes meanwhile.
        return self._client.get_object(
            Bucket=self.name, Key=at.key, Range=byte_range, IfMatch=at.etag, **version
        )

    def _version_pages(self, prefix: str, after: str) -> Iterator[Mapping[str, Any]]:
        start: Any = {"KeyMarker": after} if after else {}
        while True:
            with self._explained(prefix):
                page = self._client.list_object_versions(Bucket=self.name, Prefix=prefix, **start)
            yield page
            if not page["IsTruncated"]:
                return
            start = {"KeyMarker": page["NextKeyMarker"]}
            if marker := page.get("NextVersionIdMarker"):
                start["VersionIdMarker"] = marker

    def _ask_for_versions(self) -> bool:
        from botocore.exceptions import ClientError

        from lora_pipeline.inventory.bucket_errors import error_code

        with self._explained(""):
            try:
                status = self._client.get_bucket_versioning(Bucket=self.name).get("Status")
            except ClientError as error:
                # Whoever may not ask for versions sees the objects as they are now.
                if error_code(error) in _VERSIONS_HIDDEN:
                    self.hides_versions = error_code(error) in _FORBIDDEN
                    return False
                raise
        return status is not None

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        from lora_pipeline.inventory.bucket_errors import explain

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            # "from None": boto3's exceptions hold the server's raw answer.
            raise explain(error, f"s3://{self.name}/{key}", self._endpoint) from None


class Buckets:
    """The buckets that the AWS_ settings lead to, each opened once. Opening contacts nobody."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env
        self._opened: dict[str, Bucket] = {}

    def __getitem__(self, name: str) -> Bucket:
        if name not in self._opened:
            env = self._env
            endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
            client = _client(
                endpoint,
                env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None,
                env.get("AWS_ACCESS_KEY_ID") or None,
                env.get("AWS_SECRET_ACCESS_KEY") or None,
                env.get("AWS_SESSION_TOKEN") or None,
                env.get("AWS_PROFILE") or None,
            )
            self._opened[name] = Bucket(name, client, endpoint)
        return self._opened[name]


@lru_cache(maxsize=4)
def _client(
    endpoint: str | None,
    region: str | None,
    key_id: str | None,
    secret: str | None,
    token: str | None,
    profile: str | None,
) -> S3Client:
    """Kept for as long as the process lives: making one takes a tenth of a second and some megabytes."""
    from boto3 import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path"},
    )
    own = bool(key_id and secret)
    core = get_session()
    # Reading times takes boto3 more than half of what it spends on a listing.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    try:
        session = Session(
            botocore_session=core,
            aws_access_key_id=key_id if own else None,
            aws_secret_access_key=secret if own else None,
            aws_session_token=token if own else None,
            region_name=region,
            profile_name=None if own else profile,
        )
        return session.client("s3", endpoint_url=endpoint, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreRefused("S3", f"no client can be made ({error})", "Check the AWS_ settings") from None


def _moment(text: Any) -> datetime:
    """A time in an answer: S3's listings have one spelling of it, headers another."""
    from botocore.utils import parse_timestamp

    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)
    return moment if moment.tzinfo is not None else parse_timestamp(text)
