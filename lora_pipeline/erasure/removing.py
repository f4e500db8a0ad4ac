"""Deleting files for good, wherever they lie: every version of an object, in our store and in other buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from lora_pipeline.identity import IdentityError, ObjectAddress, ObjectUrlRules, parse_object_url
from lora_pipeline.inventory.bucket_client import Bucket, Buckets
from lora_pipeline.objects.errors import ObjectNotFound, StoreRefused
from lora_pipeline.objects.store import ObjectStore

_REMEDY = "Delete it where it lies"


class OutOfReach(StoreRefused):
    """The file lies where no setting of this installation leads. `cause` holds no name."""


class Remover:
    """Finds, reads and deletes by address. Raises only ObjectStoreError."""

    def __init__(self, store: ObjectStore, buckets: Buckets | None = None) -> None:
        self._store = store
        self._buckets = buckets or Buckets()

    def delete(self, address: str) -> bool:
        """Delete the object with all its versions, or the one that the address names; whether it was there.

        StoreRefused where that cannot be done.
        """
        bucket, key = self._in_bucket(address)
        version = _version_in(address)
        if bucket is not None and version is not None:
            return bucket.delete_version(key, version)
        if bucket is not None:
            there = bucket.delete_for_good(key)
            if bucket.hides_versions:
                raise StoreRefused(
                    address,
                    "older versions may be left, which these credentials cannot see",
                    "Allow s3:GetBucketVersioning, s3:ListBucketVersions and s3:DeleteObjectVersion, or delete them",
                )
            return there
        own = self._store.key_of(address)
        if own is None:
            raise OutOfReach(address, "it lies where this installation cannot delete", _REMEDY)
        there = self._exists(own)
        self._store.delete(own)
        return there

    def sha256(self, address: str) -> str | None:
        """Of the object in our store; None where it is not there."""
        key = self._store.key_of(address)
        digest = hashlib.sha256()
        try:
            for piece in self._store.stream(key) if key else ():
                digest.update(piece)
        except ObjectNotFound:
            return None
        return digest.hexdigest() if key else None

    def lying_in(self, folder: str) -> Iterator[str]:
        """Addresses of everything in a folder of our store, be it an older version behind a deletion."""
        prefix = self._store.address(folder) + "/"
        bucket, key = self._in_bucket(prefix)
        if bucket is not None:
            for found in bucket.keys(key):
                yield f"s3://{bucket.name}/{found}"
            return
        for info in self._store.list(folder):
            yield self._store.address(info.key)

    def _exists(self, key: str) -> bool:
        try:
            self._store.head(key)
        except ObjectNotFound:
            return False
        return True

    def _in_bucket(self, address: str) -> tuple[Bucket | None, str]:
        """The bucket and key of an address that the AWS_ settings lead to."""
        if address.startswith("s3://"):
            # As it stands: in an s3:// address nothing is encoded.
            name, _, key = address.removeprefix("s3://").partition("/")
            return self._buckets[name], key
        try:
            found = parse_object_url(address)
        except IdentityError:
            return None, ""
        if isinstance(found, ObjectAddress) and found.ref.namespace == ObjectUrlRules().s3_namespace:
            return self._buckets[found.ref.bucket], found.ref.key
        return None, ""


def _version_in(address: str) -> str | None:
    if not address.startswith("https://"):
        return None
    try:
        found = parse_object_url(address)
    except IdentityError:
        return None
    return found.version_id if isinstance(found, ObjectAddress) else None
