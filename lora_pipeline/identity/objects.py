"""Stored objects: every spelling of an address resolved to one identity, (namespace, bucket, key).

The rules of an installation (aliases, endpoints, renames) are in `object_rules`. Nothing here asks a server: an
address that only a server or a configuration could resolve comes back as `Unresolved`, never as a guess.
"""

import re
from typing import NamedTuple

from lora_pipeline.identity.aws_hosts import AWS_NAMESPACES, is_access_point_bucket, match_aws_host
from lora_pipeline.identity.errors import IdentityError, refusal, require_text, shown, without_secrets
from lora_pipeline.identity.object_records import ObjectAddress, ObjectRef, Unresolved
from lora_pipeline.identity.object_rules import ObjectUrlRules
from lora_pipeline.identity.object_services import GCS, find_service, unresolved_reason
from lora_pipeline.identity.urls import Url, has_control_character, percent_decode, split_url

_MEANT = "object address"
_EXPECTED = "s3://bucket/key, gs://bucket/key or the https address of one object"
_S3_SCHEMES = frozenset(["s3", "s3a", "s3n"])
_RAW_SCHEMES = _S3_SCHEMES | {"gs"}

# Legacy bucket names in us-east-1 have capitals and underscores and any length up to 255: parsed, not judged.
_BUCKET = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9._-]{1,255}")
_ARN = re.compile(r"arn:[a-z0-9:-]+")
_MAX_KEY_BYTES = 1024
# A link that was encoded as a whole carries its signature in the key; it would be stored and shown as one.
_SIGNATURE_IN_KEY = re.compile(
    r"(?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|(?:[?&]|%(?:25)*(?:3f|26))"
    r"(?:signature|awsaccesskeyid|googleaccessid|key-pair-id|sig|token))(?:=|%(?:25)*3d)",
    re.IGNORECASE,
)
# Queries that ask for something about the object, or for a part of it, instead of the object.
_SUB_RESOURCE = re.compile(
    "acl|attributes|cors|delete|encryption|legal-hold|lifecycle|location|logging|notification|partNumber|policy"
    "|publicAccessBlock|replication|requestPayment|restore|retention|select|tagging|torrent|uploadId|uploads"
    "|versioning|versions|website"
)


class _Place(NamedTuple):
    namespace: str
    bucket: str
    key: str
    region: str | None = None
    keeps_versions: bool = True


def parse_object_url(url: str, rules: ObjectUrlRules | None = None) -> ObjectAddress | Unresolved:
    """The object that `url` addresses, under the `rules` of this installation.

    `s3://` and `gs://` are raw: nothing is decoded, `?`, `#` and `+` belong to the key. An https path is
    decoded once; in Amazon S3 a raw `+` is a space. Dots, empty segments, case and Unicode forms of a key are
    kept. The query gives the object version and is otherwise dropped: a presigned link is a bearer secret.
    Raises IdentityError for what is no object at all: a bucket, a sub-resource, a malformed address.
    """
    text = require_text(url, _MEANT, _EXPECTED).lstrip().rstrip("\t\r\n")
    if has_control_character(text):
        raise _refused(text, "a text with control characters", "Encode them, or copy the address again.")
    rules = rules or ObjectUrlRules()
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in _RAW_SCHEMES:
        found = _parse_raw(scheme.lower(), rest, text, rules)
    elif separator and scheme.lower() in ("http", "https"):
        found = _parse_http(split_url(text, _MEANT), text, rules)
    else:
        words = f"an address of scheme {shown(scheme)}" if separator else "no address"
        raise _refused(text, words, "Give the whole address, with its scheme.")
    if isinstance(found, Unresolved):
        return found
    return ObjectAddress(rules.renamed(found.ref), found.version_id, found.region_hint)


def object_uri(ref: ObjectRef, rules: ObjectUrlRules | None = None) -> str:
    """The `s3://` or `gs://` address of `ref`; under the same rules it is read back as `ref`.

    Raises IdentityError where there is no such address: another namespace, a key with control characters, a
    folder that the rules call renamed.
    """
    rules = rules or ObjectUrlRules()
    scheme = {GCS: "gs", rules.s3_namespace: "s3"}.get(ref.namespace)
    uri = f"{scheme}://{ref.bucket}/{ref.key}"
    found = parse_object_url(uri, rules) if scheme else None
    if isinstance(found, ObjectAddress) and found.ref == ref:
        return uri
    raise refusal(
        "addressable object",
        f"{ref.bucket}/{ref.key}",
        f"an object of {ref.namespace}",
        f"one of {rules.s3_namespace} or {GCS} whose address leads back to it",
        "Keep the address it came with.",
    )


def _parse_raw(scheme: str, rest: str, text: str, rules: ObjectUrlRules) -> ObjectAddress | Unresolved:
    bucket, _, key = rest.partition("/")
    if scheme not in _S3_SCHEMES:
        return _address(_Place(GCS, bucket, key), None, text)
    return _parse_bucket(_Place(rules.s3_namespace, bucket, key), None, text, rules)


def _parse_http(url: Url, text: str, rules: ObjectUrlRules) -> ObjectAddress | Unresolved:
    place = _configured_place(url, text, rules) or _aws_place(url, text) or _service_place(url, text)
    if place is None:
        return Unresolved(url.host_and_port, unresolved_reason(url), without_secrets(text))
    if isinstance(place, Unresolved):
        return place
    version_id = _version_in_query(url.query, place, text)
    return _parse_bucket(place, version_id, text, rules)


def _configured_place(url: Url, text: str, rules: ObjectUrlRules) -> _Place | None:
    alias = rules.aliases.get(url.host_and_port)
    if alias is not None:
        path = _decoded(url.path[1:], alias.namespace, text)
        return _Place(alias.namespace, alias.bucket, alias.prefix + path if path else "")
    match = rules.endpoint_of(url.host_and_port)
    if match is None:
        return None
    if match.bucket is None:
        return _path_style(match.namespace, url, None, text)
    return _Place(match.namespace, match.bucket, _decoded(url.path[1:], match.namespace, text))


def _aws_place(url: Url, text: str) -> _Place | Unresolved | None:
    host = match_aws_host(url.host) if url.port is None else None
    if host is None:
        return None
    if host.bucket is None:
        if host.kind == "website":
            raise _refused(text, "a website host without its bucket", "Put the bucket before the host.")
        place = _path_style(host.namespace, url, host.region, text)
    else:
        key = _decoded(url.path[1:], host.namespace, text)
        place = _Place(host.namespace, host.bucket, key, host.region)
    if host.kind == "accelerate" and "." in place.bucket:
        raise _refused(text, "an accelerated bucket with dots", "S3 has no such host; use the regional one.")
    if host.kind == "website":
        if place.key.endswith("/"):
            reason = (
                "a bucket's website answers a folder with its index document, which only its settings name"
            )
            return Unresolved(url.host_and_port, reason, without_secrets(text))
        return place._replace(keeps_versions=False)
    return place


def _service_place(url: Url, text: str) -> _Place | None:
    service = find_service(url)
    if service is None:
        return None
    if service.bucket is None:
        return _path_style(service.namespace, url, None, text)
    key = _decoded(url.path[1:], service.namespace, text)
    return _Place(service.namespace, service.bucket, key, None, service.keeps_versions)


def _path_style(namespace: str, url: Url, region: str | None, text: str) -> _Place:
    bucket, _, key = url.path[1:].partition("/")
    return _Place(namespace, _decoded(bucket, namespace, text), _decoded(key, namespace, text), region)


def _parse_bucket(
    place: _Place, version_id: str | None, text: str, rules: ObjectUrlRules
) -> ObjectAddress | Unresolved:
    """The address of `place`, unless its bucket is only the name of an access point."""
    if place.namespace not in AWS_NAMESPACES:
        return _address(place, version_id, text)
    if _ARN.fullmatch(place.bucket):
        reason = "an access point's ARN does not tell its bucket; use its …-s3alias name, configured as access point"
        return Unresolved(place.bucket, reason, without_secrets(text))
    address = _address(place, version_id, text)
    if not is_access_point_bucket(place.bucket):
        return address
    behind = rules.access_points.get(place.bucket)
    if behind is None:
        reason = "an S3 access point does not tell its bucket; configure it under access_points"
        return Unresolved(place.bucket, reason, without_secrets(text))
    key = behind.prefix + place.key
    return _address(_Place(behind.namespace, behind.bucket, key, place.region), version_id, text)


def _address(place: _Place, version_id: str | None, text: str) -> ObjectAddress:
    if not _BUCKET.fullmatch(place.bucket):
        raise _refused(text, "an address without a usable bucket name", "Check what stands before the key.")
    if not place.key:
        raise _refused(text, "a bucket without a key", "Add the object's key.")
    try:
        key_bytes = len(place.key.encode("utf-8"))
    except UnicodeEncodeError:
        key_bytes = None
    if key_bytes is None or "\0" in place.key:
        raise _refused(text, "a key that is no storable UTF-8 text", "Copy the address again.")
    if key_bytes > _MAX_KEY_BYTES:
        raise _refused(text, f"a key of {key_bytes} bytes", f"S3 takes {_MAX_KEY_BYTES}; is it one address?")
    if _SIGNATURE_IN_KEY.search(f"{place.key}&{version_id or ''}"):
        raise _refused(
            text, "a link whose signature ended up in the key", "Decode the link once, or cut its query."
        )
    return ObjectAddress(ObjectRef(place.namespace, place.bucket, place.key), version_id, place.region)


def _version_in_query(query: str, place: _Place, text: str) -> str | None:
    """The object version a query asks for. Everything else in it is dropped, or changes what is asked for."""
    version_name = "generation" if place.namespace == GCS else "versionId"
    versions: list[str | None] = []
    for parameter in query.split("&"):
        raw_name, _, raw_value = parameter.partition("=")
        name = percent_decode(raw_name, plus_is_space=True)
        if name is not None and _SUB_RESOURCE.fullmatch(name):
            raise _refused(
                text, f"the object's {name}, or a part of the object", "Remove the query to mean the object."
            )
        if name == version_name and place.keeps_versions:
            versions.append(percent_decode(raw_value, plus_is_space=True))
    if not versions:
        return None
    version = versions[0]
    if len(versions) > 1 or not version or has_control_character(version):
        raise _refused(text, f"an address with no single {version_name}", "Give one object version, or none.")
    return version


def _decoded(encoded: str, namespace: str, text: str) -> str:
    decoded = percent_decode(encoded, plus_is_space=namespace in AWS_NAMESPACES)
    if decoded is None:
        raise _refused(
            text, "an address that is not encoded UTF-8", "Encode the key: % as %25, text as UTF-8."
        )
    return decoded


def _refused(text: str, found: str, advice: str) -> IdentityError:
    return refusal(_MEANT, text, found, _EXPECTED, advice)
