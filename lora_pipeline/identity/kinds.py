"""What a text looks like: the shapes of the identifiers that get mixed up, and their names for messages.

Only shapes: that a text looks like a training id does not say that such a training exists.
"""

import re
from dataclasses import dataclass
from typing import Literal

from lora_pipeline.identity.errors import IdentityError
from lora_pipeline.identity.urls import split_url

HASH = re.compile(r"[0-9A-Fa-f]{64}")
REPLICATE_JOB = re.compile(r"[a-z0-9]{26}")
# Owners and models at Replicate are lower-case letters, digits, dashes, underscores and periods. Capitals are
# taken here because people type them; whoever keeps the parts lower-cases them.
MODEL_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A job of `/run` has a suffix that says where it ran (-u1, -e1, -e2); one of `/runsync` starts with `sync-`.
RUNPOD_JOB = re.compile(
    r"(?:sync-)?(?P<base>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})(?P<suffix>-[a-z][0-9]{1,3})?"
)
_HEX = re.compile(r"[0-9A-Fa-f]{4,}")
_TOKEN = re.compile(r"(?:r8_|whsec_|rpa_|hf_)\S+")
_EMAIL = re.compile(r"[^@\s/]+@[^@\s/]+\.[^@\s/]+")
_VERSION_NAME = re.compile(r"(?:.*[_ -])?[vV]{1,2}[0-9]+(?:\.safetensors)?")

KindName = Literal[
    "url", "token", "email", "hash", "training_id", "runpod_id", "hash_length", "model", "version", "other"
]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a text looks like: `name` for a program to decide on, `words` for a person to read."""

    name: KindName
    words: str


_WHOLE = (
    (Kind("token", "an API token; it belongs in the settings only"), _TOKEN),
    (Kind("email", "an e-mail address"), _EMAIL),
    (Kind("hash", "a 64-digit hash"), HASH),
    (Kind("training_id", "a Replicate training id"), REPLICATE_JOB),
    (Kind("runpod_id", "a RunPod job id"), RUNPOD_JOB),
)


def kind_of(text: str) -> Kind:
    """The most specific thing `text` (without surrounding space) looks like."""
    if "://" in text:
        return Kind("url", _url_words(text))
    for kind, shape in _WHOLE:
        if shape.fullmatch(text):
            return kind
    return _kind_of_composite(text)


def _kind_of_composite(text: str) -> Kind:
    if _HEX.fullmatch(text):
        if len(text) < 64:
            return Kind("hash_length", f"a short hash: {len(text)} of 64 digits")
        return Kind("hash_length", f"a hash of {len(text)} digits instead of 64")
    prefix, colon, last = text.rpartition(":")
    if colon and is_model(prefix.rpartition(":")[2] or prefix):
        inner = kind_of(last) if last else Kind("other", "nothing")
        if inner.name == "hash":
            return Kind("version", "a version")
        return Kind(inner.name, f"a model followed by {inner.words}")
    if "/" in text and is_model(text):
        return Kind("model", "a model without a version")
    if _VERSION_NAME.fullmatch(text):
        return Kind("other", "a version name")
    if len(text) == 64:
        return Kind("hash_length", "64 characters that are not all hexadecimal")
    return Kind("other", f"{len(text)} characters of some other text")


def is_model(text: str) -> bool:
    """Whether `text` has the shape of a model: `owner/name`, or `name` alone."""
    parts = text.split("/")
    return len(parts) <= 2 and all(MODEL_PART.fullmatch(part) for part in parts)


def _url_words(text: str) -> str:
    try:
        return f"a URL of {split_url(text, 'URL').host_and_port}"
    except IdentityError:
        return "a URL without a usable host"
