"""Reading a found file: its claims, its header first, and all of it only where the header is a LoRA's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

from lora_pipeline.inventory.back_fill import claims_of
from lora_pipeline.inventory.bucket_client import Bucket, ObjectAt
from lora_pipeline.objects.errors import StoreUnavailable
from lora_pipeline.versions.lora_layers import lora_rank
from lora_pipeline.versions.refusal import Refusal, WeightsRefused
from lora_pipeline.versions.safetensors_file import FIRST_READ, read_header
from lora_pipeline.versions.weights import VerifiedWeights, inspect_safetensors


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What a file is, or why it is refused."""

    claims: Mapping[str, str]
    weights: VerifiedWeights | None = None
    refusal: str | None = None
    """The code of the refusal and its message."""


def read_file(bucket: Bucket, at: ObjectAt, size: int, cap_bytes: int) -> ReadFile:
    """Read one object: one request for a small file or a bad one, two for any other; memory stays bounded.

    The first answer brings the user metadata too, so that no HEAD is needed. Raises ObjectStoreError.
    """
    if size > cap_bytes:
        too_large = WeightsRefused(
            Refusal.TOO_LARGE,
            f"The file is {size:,} bytes, the limit is {cap_bytes:,}. If weights of this size are expected, raise "
            "LORA_WEIGHTS_CAP_BYTES",
        )
        return ReadFile({}, refusal=_told(too_large))
    if size == 0:
        return ReadFile({}, refusal=f"{Refusal.TRUNCATED}: the object is empty")
    beginning = bucket.begin(at, FIRST_READ)
    claims, content = claims_of(beginning.metadata), beginning.content
    try:
        _check_header(bucket, at, content, size)
        weights = _read_all(bucket, at, content, size)
    except WeightsRefused as refused:
        return ReadFile(claims, refusal=_told(refused))
    return ReadFile(claims, weights)


def _check_header(bucket: Bucket, at: ObjectAt, beginning: bytes, size: int) -> None:
    def get_range(start: int, length: int) -> bytes:
        if start + length <= len(beginning):
            return beginning[start : start + length]
        return bucket.part(at, start, length)

    lora_rank(read_header(get_range, size).tensors)


def _read_all(bucket: Bucket, at: ObjectAt, beginning: bytes, size: int) -> VerifiedWeights:
    with tempfile.TemporaryFile(prefix="lora-inventory-") as file:
        file.write(beginning)
        received = len(beginning)
        if received < size:
            for piece in bucket.rest(at, received):
                file.write(piece)
                received += len(piece)
        if received != size:
            raise StoreUnavailable(
                at.key, f"reading gave {received:,} of {size:,} bytes", "It is tried again by the next run"
            )
        return inspect_safetensors(file)


def _told(refused: WeightsRefused) -> str:
    return f"{refused.code}: {refused}"
