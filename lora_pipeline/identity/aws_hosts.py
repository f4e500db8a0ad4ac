"""Which host names belong to Amazon S3, and the bucket, region and partition they tell.

Only hosts: keys, versions and queries are read in `objects`.
"""

import re
from dataclasses import dataclass
from typing import Literal

AwsHostKind = Literal["rest", "accelerate", "website"]

AWS = "s3/aws"
AWS_CN = "s3/aws-cn"
AWS_US_GOV = "s3/aws-us-gov"
AWS_NAMESPACES = frozenset([AWS, AWS_CN, AWS_US_GOV])

_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}"
# The endpoint is what the host ends in, and no endpoint ends in another one: there is one reading, in which a
# bucket called `s3` or `my.s3.bucket` keeps its name. The endpoint must start a label: `xs3` is not S3.
_ENDPOINT = re.compile(
    r"(?:(?P<bucket>.+)\.)?"
    r"(?:s3"
    r"|s3-external-1"
    r"|(?P<accelerate>s3-accelerate)(?:\.dualstack)?"
    rf"|s3(?:-fips)?(?:\.dualstack)?\.(?P<region>{_REGION})"
    rf"|s3-(?:fips-)?(?P<dash_region>{_REGION})"
    rf"|s3-website[.-](?P<website_region>{_REGION}))"
)


@dataclass(frozen=True, slots=True)
class AwsHost:
    """What a host of Amazon S3 tells."""

    namespace: str
    kind: AwsHostKind
    region: str | None
    """As the host says; for a presigned link it need not be the bucket's region."""
    bucket: str | None
    """None where the bucket is the first segment of the path."""


def match_aws_host(host: str) -> AwsHost | None:
    """The S3 endpoint that `host` (lower case, no trailing dot) is, or None.

    None as well for Amazon hosts that name no bucket by themselves (access points, Object Lambda, Outposts,
    multi-region access points) and for partitions that have no namespace here.
    """
    china = host.endswith(".amazonaws.com.cn")
    if not china and not host.endswith(".amazonaws.com"):
        return None
    endpoint = _ENDPOINT.fullmatch(host.removesuffix(".amazonaws.com.cn" if china else ".amazonaws.com"))
    if endpoint is None:
        return None
    region = endpoint["region"] or endpoint["dash_region"] or endpoint["website_region"]
    namespace = _namespace(region, china)
    if namespace is None or (endpoint["accelerate"] and china):
        return None
    kind: AwsHostKind = "rest"
    if endpoint["accelerate"]:
        kind = "accelerate"
    elif endpoint["website_region"]:
        kind = "website"
    return AwsHost(namespace, kind, region, endpoint["bucket"])


def _namespace(region: str | None, china: bool) -> str | None:
    """Bucket names are unique within a partition, so the partition is part of the identity."""
    if china:
        return AWS_CN if region is None or region.startswith("cn-") else None
    if region is None:
        return AWS
    if region.startswith("cn-") or "-iso" in region:
        return None
    return AWS_US_GOV if region.startswith("us-gov-") else AWS


def is_access_point_bucket(bucket: str) -> bool:
    """Whether `bucket` stands for an access point: which bucket lies behind it cannot be known offline."""
    return bucket.endswith(("-s3alias", "--ol-s3"))
