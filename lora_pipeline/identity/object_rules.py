"""What an installation knows about its own object addresses: aliases, endpoints, access points and renames.

Records only; `objects` applies them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lora_pipeline.identity.aws_hosts import AWS
from lora_pipeline.identity.errors import refusal
from lora_pipeline.identity.object_records import ObjectRef
from lora_pipeline.identity.urls import split_url


@dataclass(frozen=True, slots=True)
class ObjectPrefix:
    """Where an alias leads: objects of this bucket whose keys start with `prefix` (put before the path as it is)."""

    namespace: str
    bucket: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An S3-compatible server of this installation."""

    namespace: str
    style: Literal["path", "virtual"] = "path"
    """`virtual`: buckets may also stand before the host."""


@dataclass(frozen=True, slots=True)
class PrefixRename:
    """Keys under the folder `old` were moved to the folder `new`; addresses written before still say `old`."""

    bucket: str
    old: str
    new: str
    namespace: str = AWS

    def __post_init__(self) -> None:
        for folder in (self.old, self.new):
            if not folder.strip("/"):
                raise refusal(
                    "renamed folder", folder, "no folder", "a folder such as old_user", "Name both folders."
                )

    def applied(self, ref: ObjectRef) -> ObjectRef:
        """`ref` under its new key, or itself. `style` renames `style/a`, never `style_1/a`."""
        old = self.old.removesuffix("/") + "/"
        if (ref.namespace, ref.bucket) != (self.namespace, self.bucket) or not ref.key.startswith(old):
            return ref
        new = self.new.removesuffix("/") + "/"
        return ObjectRef(ref.namespace, ref.bucket, new + ref.key[len(old) :])


class EndpointMatch(NamedTuple):
    """A configured endpoint that serves a host; `bucket` is None where the path names it."""

    namespace: str
    bucket: str | None


@dataclass(frozen=True, slots=True)
class ObjectUrlRules:
    """The rules of one installation. Hosts are written `host` or `host:port`, in any case, without a scheme."""

    aliases: Mapping[str, ObjectPrefix] = field(default_factory=dict)
    """CDN, custom domain or r2.dev host → where its paths lead."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """Host of an S3-compatible server → its namespace and style."""
    access_points: Mapping[str, ObjectPrefix] = field(default_factory=dict)
    """Access point alias (`…-s3alias`, `…--ol-s3`) used as a bucket → the bucket behind it."""
    renames: tuple[PrefixRename, ...] = ()
    """In the order in which they happened; each is applied once."""
    s3_namespace: str = AWS
    """What `s3://` means here; another one where the store is not Amazon's or in another partition."""

    def __post_init__(self) -> None:
        for name in ("aliases", "endpoints"):
            hosts = getattr(self, name)
            object.__setattr__(self, name, {_plain_host(host): target for host, target in hosts.items()})

    def endpoint_of(self, host_and_port: str) -> EndpointMatch | None:
        """The configured endpoint of a host; the longest one where several end it."""
        exact = self.endpoints.get(host_and_port)
        if exact is not None:
            return EndpointMatch(exact.namespace, None)
        labels = host_and_port.split(".")
        for start in range(1, len(labels)):
            endpoint = self.endpoints.get(".".join(labels[start:]))
            if endpoint is not None and endpoint.style == "virtual":
                return EndpointMatch(endpoint.namespace, ".".join(labels[:start]))
        return None

    def renamed(self, ref: ObjectRef) -> ObjectRef:
        """`ref` after every rename since its address was written."""
        for rename in self.renames:
            ref = rename.applied(ref)
        return ref


def _plain_host(host: str) -> str:
    url = split_url(f"https://{host}", "configured host")
    if url.path or url.query:
        raise refusal(
            "configured host", host, "more than a host", "host or host:port", "Remove scheme and path."
        )
    return url.host if url.port == 80 else url.host_and_port
