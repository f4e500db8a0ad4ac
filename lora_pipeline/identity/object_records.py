"""The records that object addresses are read into; how they are read is in `objects`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """The identity of a stored object. Keys are compared exactly: case, dots and Unicode forms count."""

    namespace: str
    """`s3/aws`, `s3/aws-cn`, `s3/aws-us-gov`, `r2/<account>/<jurisdiction>`, `gs`, `vercel-blob/<store>`, or a
    configured one. Bucket names are unique within it."""
    bucket: str
    """For Vercel Blob, which has no buckets, the store again."""
    key: str


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """An identified object: `ref` is the identity, the rest is what the address said besides."""

    ref: ObjectRef
    version_id: str | None = None
    """The object version (S3 versionId, Google generation); the text "null" is a real one in S3."""
    region_hint: str | None = None
    """The region in the host. A hint: links of one bucket are signed with different hosts."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An address that may name an object, but only a configured alias or endpoint could say which."""

    host: str
    """With its port where that is not the scheme's own; for s3:// the access point's name."""
    reason: str
    """Why, and what to configure; for a person."""
    url: str
    """The address as it may be shown and logged: without query, fragment and credentials."""
