"""Which prefixes of which buckets the inventory lists, as the settings say it. Rules only."""

from __future__ import annotations

from lora_pipeline.identity import ObjectPrefix, ObjectUrlRules
from lora_pipeline.identity.errors import shown
from lora_pipeline.settings import SettingsError

OWN_PREFIXES = ("loras", "trained")
"""Where our own store keeps weights: those we archived, and those that a worker leaves for us."""
_EXPECTED = "s3://bucket or s3://bucket/folder, several separated by commas"


def configured_places(text: str, store_address: str) -> tuple[ObjectPrefix, ...]:
    """The places that LORA_INVENTORY names; where it is empty, our own store's, if that is a bucket.

    A folder means what lies in it: `users/1` never lists `users/10/…`. A place inside another one is left out, so
    that no object is listed twice. None at all where there is no bucket. Raises SettingsError.
    """
    named = [part.strip() for part in text.split(",") if part.strip()]
    if not named and store_address.startswith("s3://"):
        named = [f"{store_address.rstrip('/')}/{prefix}" for prefix in OWN_PREFIXES]
    places = {_place(address) for address in named}
    outermost = (place for place in places if not any(_contains(other, place) for other in places))
    return tuple(sorted(outermost, key=place_name))


def place_name(place: ObjectPrefix) -> str:
    """As a person writes it."""
    return f"s3://{place.bucket}/{place.prefix}"


def _place(address: str) -> ObjectPrefix:
    bucket, _, folder = address.removeprefix("s3://").partition("/")
    if not address.startswith("s3://") or not bucket:
        raise SettingsError(f"LORA_INVENTORY names {shown(address)}; expected {_EXPECTED}")
    folder = folder.removesuffix("/")
    return ObjectPrefix(ObjectUrlRules().s3_namespace, bucket, f"{folder}/" if folder else "")


def _contains(outer: ObjectPrefix, inner: ObjectPrefix) -> bool:
    same_bucket = (outer.namespace, outer.bucket) == (inner.namespace, inner.bucket)
    return same_bucket and outer != inner and inner.prefix.startswith(outer.prefix)
