"""Object stores other than Amazon S3 whose hosts tell the bucket: Cloudflare R2, Google Cloud Storage, Vercel Blob;
and the words for hosts that do not.

Hosts only, as in `aws_hosts`.
"""

import re
from typing import NamedTuple

from lora_pipeline.identity.urls import Url

GCS = "gs"
_GCS_HOSTS = frozenset(
    ["storage.googleapis.com", "storage.cloud.google.com", "commondatastorage.googleapis.com"]
)
# Buckets of one account and name exist once per jurisdiction; `default` is Cloudflare's own word for none.
_R2 = re.compile(
    r"(?:(?P<bucket>[a-z0-9_-]+)\.)?(?P<account>[0-9a-f]{32})(?:\.(?P<jurisdiction>eu|us|fedramp))?"
    r"\.r2\.cloudflarestorage\.com"
)
_VERCEL = re.compile(r"(?P<store>[a-z0-9_-]+)\.(?:public|private)\.blob\.vercel-storage\.com")
# Google's JSON and upload interfaces share the host with the buckets' paths.
_GCS_INTERFACES = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/", "/batch/storage/v1")

_CDN = "a CDN or public host does not tell which bucket lies behind it; configure an alias for this host"
_COMPATIBLE = "an S3-compatible service; configure an endpoint for its host"
_AMAZON = "an Amazon host that names no bucket, such as an access point; configure an alias for this host"
_UNRESOLVED = {
    "cloudfront.net": _CDN,
    "r2.dev": _CDN,
    "cdn.digitaloceanspaces.com": _CDN,
    "digitaloceanspaces.com": _COMPATIBLE,
    "backblazeb2.com": _COMPATIBLE,
    "wasabisys.com": _COMPATIBLE,
    "r2.cloudflarestorage.com": "no known account or jurisdiction of R2; configure an endpoint for this host",
    "amazonaws.com": _AMAZON,
    "amazonaws.com.cn": _AMAZON,
    "googleapis.com": "a Google host that is not read as a bucket's; use gs://bucket/key or configure an alias",
    "replicate.delivery": "Replicate's short-lived delivery host, not a bucket: download and archive the file",
}
_UNKNOWN = (
    "no known object store; if it is a custom domain or a server of yours, configure an alias or endpoint"
)
_OTHER_PORT = "not the port of this host's own service; if it is a server of yours, configure an endpoint"


class Service(NamedTuple):
    """A host of an object store; `bucket` is None where the path names it."""

    namespace: str
    bucket: str | None
    keeps_versions: bool = True


def find_service(url: Url) -> Service | None:
    """The object store whose host `url` has, if the host alone tells the bucket or says that the path does."""
    if url.port is not None:
        return None
    r2 = _R2.fullmatch(url.host)
    if r2:
        return Service(f"r2/{r2['account']}/{r2['jurisdiction'] or 'default'}", r2["bucket"])
    vercel = _VERCEL.fullmatch(url.host)
    if vercel:
        return Service(f"vercel-blob/{vercel['store']}", vercel["store"], keeps_versions=False)
    if url.host in _GCS_HOSTS:
        return None if url.path.startswith(_GCS_INTERFACES) else Service(GCS, None)
    if url.host.endswith(".storage.googleapis.com"):
        return Service(GCS, url.host.removesuffix(".storage.googleapis.com"))
    return None


def unresolved_reason(url: Url) -> str:
    """Why an address of this host stays unresolved, and what to configure."""
    for suffix, reason in _UNRESOLVED.items():
        if url.host == suffix or url.host.endswith(f".{suffix}"):
            return reason if url.port is None else _OTHER_PORT
    return _UNKNOWN
