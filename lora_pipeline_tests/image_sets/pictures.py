"""Real image files for tests, made on the spot: what phones, cameras and accidents produce."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from PIL.ExifTags import GPS, IFD, Base


@cache
def photograph(name: str = "astronaut.png", size: tuple[int, int] = (640, 600)) -> Image.Image:
    """A photograph out of scikit-image's wheel (public domain or CC0)."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return Image.open(folder / name).convert("RGB").resize(size, Image.Resampling.LANCZOS)


def scene(seed: int, size: tuple[int, int] = (640, 600)) -> Image.Image:
    """A picture unlike that of any other seed, with edges and fine texture."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize(size, Image.Resampling.NEAREST)).astype(np.int16)
    noise = random.integers(-20, 20, (size[1], size[0], 1))
    return Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, image_format: str = "JPEG", /, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def jpeg(seed: int = 0, size: tuple[int, int] = (640, 600), **options: Any) -> bytes:
    return encoded(scene(seed, size), quality=90, **options)


def heic(picture: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encoded(picture, "HEIF", quality=90, **options)


def exif(orientation: int = 1, day: str | None = None, *, gps: bool = False) -> Image.Exif:
    """EXIF as a phone writes it; the day as `2024:05:17`."""
    data = Image.Exif()
    data[Base.Orientation] = orientation
    data[Base.Make] = "SecretMaker"
    if day:
        data.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = f"{day} 12:30:00"
    if gps:
        data.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] = "N"
        data.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] = (59.0, 54.0, 45.0)
    return data


def png_by_hand(
    size: tuple[int, int], *, bits: int = 8, colour_type: int = 2, pixels: bytes = b"", text: bytes = b""
) -> bytes:
    """A PNG put together from chunks: what no encoder would write."""
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0))]
    if text:
        parts.append(_chunk(b"tEXt", b"Comment\0" + text))
    parts += [_chunk(b"IDAT", zlib.compress(pixels)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb() -> bytes:
    """60,000 × 60,000 pixels in a file of 67 bytes."""
    return png_by_hand((60_000, 60_000))


def sixteen_bit_rgb(size: tuple[int, int], colour: tuple[int, int, int]) -> bytes:
    """A PNG with 16 bits a channel, all of one colour (each 0 to 65,535)."""
    row = b"\0" + struct.pack(">HHH", *colour) * size[0]
    return png_by_hand(size, bits=16, pixels=row * size[1])


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with one more segment right after its start."""
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


Pixels = np.ndarray[Any, np.dtype[np.int16]]


def pixels(data: bytes) -> Pixels:
    return np.asarray(opened(data).convert("RGB")).astype(np.int16)


VARIATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda picture: opened(encoded(picture, quality=60)),
    "half size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
}
