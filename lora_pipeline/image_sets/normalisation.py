"""The image that trainers get: upright sRGB JPEG of at most 2,048 pixels a side, with nothing in it but the picture."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass

from lora_pipeline.image_sets.decoding import Decoded
from lora_pipeline.image_sets.jpeg_segments import NotWalkable, without_metadata

QUALITY = 95
"""With full colour resolution (4:4:4); never lowered to fit a limit."""


@dataclass(frozen=True)
class Normalised:
    """The bytes of a normalised image and what a ZIP needs to know of them."""

    data: bytes
    sha256: str
    crc32: int

    @property
    def size(self) -> int:
        return len(self.data)


def normalise(decoded: Decoded, original: bytes) -> Normalised:
    """The original's own compressed pixels where they conform, without its metadata; a new JPEG otherwise."""
    data = _kept(original) if not decoded.fixes else None
    if data is None:
        data = _encode(decoded)
    return Normalised(data, hashlib.sha256(data).hexdigest(), zlib.crc32(data))


def _kept(original: bytes) -> bytes | None:
    try:
        return without_metadata(original)
    except NotWalkable:
        return None


def _encode(decoded: Decoded) -> bytes:
    from PIL import Image

    # A picture that was opened from a file keeps its comment, which Pillow writes again; a new one has none.
    clean = Image.new("RGB", decoded.picture.size)
    clean.paste(decoded.picture)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
