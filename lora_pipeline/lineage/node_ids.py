"""The stable ids of nodes: made from what a thing is, and read back as they are written.

`image:<sha256>`, `set:12`, `zip:<sha256>@12` (of image set 12), `run:7`, `version:9`, `artifact:<content key>`,
`object:<address>`, `model:<key>`.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from lora_pipeline.identity import (
    IdentityError,
    ObjectAddress,
    ObjectRef,
    ObjectUrlRules,
    object_uri,
    parse_object_url,
)
from lora_pipeline.lineage.graph import Kind

_HEX = r"[0-9a-f]{64}"
_NUMBER = r"[1-9][0-9]{0,17}"
_SHAPES = {
    Kind.IMAGE: _HEX,
    Kind.SET: _NUMBER,
    Kind.ZIP: rf"{_HEX}(?:@{_NUMBER})?",
    Kind.RUN: _NUMBER,
    Kind.VERSION: _NUMBER,
    Kind.ARTIFACT: _HEX,
    Kind.MODEL: r"[^\s/]+",
}
FILES = "file"
"""The namespace of local folders."""


class Place(NamedTuple):
    """Where an object lies, and which of its versions."""

    ref: ObjectRef
    """In a local folder: the namespace `file`, no bucket, and the path as its address spells it."""
    object_version: str = ""


def node_id(kind: Kind, key: object) -> str:
    """The id of the node of this kind."""
    return f"{kind}:{key}"


def zip_id(sha256: str, image_set_id: int | None) -> str:
    """A ZIP's id. Two sets of the same content make the same ZIP, and are still two sets."""
    return node_id(Kind.ZIP, sha256 if image_set_id is None else f"{sha256}@{image_set_id}")


def object_id(place: Place) -> str:
    """A stored object's id."""
    return node_id(Kind.OBJECT, address_of(place))


def read_node_id(text: str) -> tuple[Kind, str] | None:
    """(kind, key) where `text` is a node's id, except for objects, whose addresses have many spellings."""
    name, colon, key = text.partition(":")
    for kind, shape in _SHAPES.items():
        if colon and name == kind and re.fullmatch(shape, key):
            return kind, key
    return None


def place_of(text: str, rules: ObjectUrlRules | None = None) -> Place | None:
    """The place that an address in any spelling names; None where it is no address, or only a server could say.

    Raises nothing: what is stored as an address need not be one.
    """
    if text.startswith("file://"):
        parts = urlsplit(text)
        local = parts.netloc in ("", "localhost") and parts.path
        return Place(ObjectRef(FILES, "", quote(unquote(parts.path)))) if local else None
    if "://" not in text:
        return None
    try:
        found = parse_object_url(text, rules)
    except IdentityError:
        return _of_a_namespace(text)
    return Place(found.ref, found.version_id or "") if isinstance(found, ObjectAddress) else None


def places_meant(text: str, rules: ObjectUrlRules) -> list[Place]:
    """Every place that an address can mean: today's, that of before a rename, and of `key@version` the object version.

    The inventory shows that as `?versionId=`, which an `s3://` address has no other reading for but a key's end.
    """
    found = [place_of(text, rules), place_of(text)]
    for mark in ("@", "?versionId=") if text.startswith("s3://") else ("@",):
        head, at, version = text.rpartition(mark)
        if at and "/" not in version:
            found += [
                Place(one.ref, version) for one in (place_of(head, rules), place_of(head)) if one is not None
            ]
    return list(dict.fromkeys(place for place in found if place is not None))


def address_of(place: Place) -> str:
    """How a place is written: `s3://…`, `gs://…`, `file://…`, else its namespace before the slashes."""
    namespace, bucket, key = place.ref.namespace, place.ref.bucket, place.ref.key
    if namespace == FILES:
        return f"file://{key}"
    try:
        address = object_uri(place.ref)
    except IdentityError:
        address = f"{namespace}://{bucket}/{key}"
    return f"{address}@{place.object_version}" if place.object_version else address


def _of_a_namespace(text: str) -> Place | None:
    """What `address_of` writes for stores without a scheme of their own, such as `r2/<account>/default`."""
    namespace, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if "/" not in namespace or "?" in text or not (bucket and key):
        return None
    return Place(ObjectRef(namespace, bucket, key))
