"""Rules for keys and user metadata that hold in every store, so that moving from a folder to S3 changes nothing.

A key is what both S3 and a folder can hold without surprise: relative, no empty, ``.`` or ``..`` segment (a folder
would resolve them, the S3 client cannot address them), no control character, at most 1,024 bytes of UTF-8
(S3's limit).
"""

import re
from collections.abc import Mapping

from lora_pipeline.objects.errors import InvalidKey

MAX_KEY_BYTES = 1024
MAX_METADATA_BYTES = 2048  # S3's limit for names and values of one object together

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_METADATA_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
# The S3 client takes these for HTTP attributes of the object rather than for user metadata.
_ATTRIBUTES = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "storage-class",
    }
)


def check_key(key: str) -> str:
    """Return ``key`` unchanged, or raise InvalidKey saying what is wrong with it."""
    problem = _key_problem(key)
    if problem is not None:
        raise InvalidKey(
            f"object key {key!r}", problem, "Use a relative key such as 'users/50/originals/1.jpg'"
        )
    return key


def _key_problem(key: str) -> str | None:
    if not key:
        return "the key is empty"
    if _CONTROL.search(key):
        return "it contains a control character"
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        return "it contains a character that UTF-8 cannot express"
    if length > MAX_KEY_BYTES:
        return f"it is {length} bytes long, more than the {MAX_KEY_BYTES} that S3 allows"
    segments = key.split("/")
    if "" in segments:
        return "it starts or ends with '/' or contains '//'"
    if "." in segments or ".." in segments:
        return "it contains a '.' or '..' segment"
    return None


def check_prefix(prefix: str) -> str:
    """Return a listing prefix as a folder without its closing slash; ``""`` means the whole store."""
    folder = prefix.removesuffix("/")
    return check_key(folder) if folder else ""


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return user metadata with lower-cased names, as S3 gives them back, or raise InvalidKey.

    Values are printable ASCII without surrounding space: S3 sends them as HTTP headers, and an object stored with
    any other value can be written but its metadata never read again.
    """
    checked = {name.lower(): value for name, value in (metadata or {}).items()}
    for name, value in checked.items():
        if not _METADATA_NAME.fullmatch(name) or name in _ATTRIBUTES:
            raise InvalidKey(
                f"metadata name {name!r}", "it is no plain user metadata name", "Use letters, digits and '-'"
            )
        if not _METADATA_VALUE.fullmatch(value):
            raise InvalidKey(
                f"metadata {name!r}",
                f"its value {value!r} is not printable ASCII",
                "Encode it, for example as hexadecimal",
            )
    size = sum(len(name) + len(value) for name, value in checked.items())
    if size > MAX_METADATA_BYTES:
        raise InvalidKey(
            "user metadata", f"it is {size} bytes, S3 allows {MAX_METADATA_BYTES}", "Store it as an object"
        )
    return checked
