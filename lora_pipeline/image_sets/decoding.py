"""From bytes to an upright 8-bit sRGB picture, or to the finding that says why there is none.

Pillow's own signs are not enough: its `verify()` passes JPEGs cut in half, and it only warns up to 179 million
pixels. So a picture is refused by its header, then decoded in full. Files and object stores do not belong here.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from lora_pipeline.image_sets.findings import Finding, Severity

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 89_000_000
"""More is refused before decoding: 267 MB of memory a picture, and above what Pillow takes without a warning."""

MAX_SIDE = 2048
"""Pixels of the longer side that are kept. Flux is trained at 1024 and below."""

ENOUGH_SIDE = 1920
"""Where dividing by a whole number ends between here and MAX_SIDE, that is taken: a phone's 4032 pixels become 2016
while decoding, at a fifth of the cost of resampling to 2048."""

# Exact names of what may be decoded: Pillow also knows formats that start other programs (EPS) or hold none.
# "JPEG" opens the several-picture files of phones too, and then calls itself "MPO".
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "BMP", "GIF", "TIFF")
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
_TAKEN, _DIGITISED = 0x9003, 0x9004
_DAY = re.compile(r"(\d{4}):(\d\d):(\d\d)")


class Undecodable(Exception):
    """The bytes give no picture; `finding` says why, and what to do."""

    def __init__(self, finding: Finding, image_format: str | None = None) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.format = image_format


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture, at most MAX_SIDE pixels long, and what had to be done to get it.

    `width` and `height` are those of the upright original. Without fixes the original is a JPEG whose pixels are
    what trainers should read. `metadata` names the kinds that the file carries.
    """

    picture: Image
    format: str
    width: int
    height: int
    captured_on: str | None
    metadata: tuple[str, ...]
    fixes: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def decode(data: bytes) -> Decoded:
    """Decode the picture in full. Raises Undecodable, and nothing else, for whatever the bytes may be."""
    from PIL import Image, UnidentifiedImageError

    if data.startswith(_APPLE_DOUBLE):
        from lora_pipeline.image_sets.image_checks import apple_double

        raise Undecodable(apple_double())
    _register_formats()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return _decode(opened)
    except Undecodable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Undecodable(_too_many_pixels(_pixels_in(str(error)))) from error
    except UnidentifiedImageError as error:
        raise Undecodable(_unreadable(data), _format_of(data)) from error
    except Exception as error:  # decoders raise anything on hostile bytes
        raise Undecodable(_damaged(_cause(error)), _format_of(data)) from error


def _decode(opened: Image) -> Decoded:
    stored_format = str(opened.format)
    image_format = "JPEG" if stored_format == "MPO" else stored_format
    if opened.width * opened.height > MAX_PIXELS:
        raise Undecodable(_too_many_pixels(opened.width * opened.height), image_format)
    from PIL import ImageOps

    from lora_pipeline.image_sets.colours import to_srgb

    deep = any(
        "16" in str(tile.args) for tile in getattr(opened, "tile", ())
    )  # reading EXIF may load, and forget this
    metadata, captured_on, orientation = _read_metadata(opened)
    notes = tuple(_several_pictures(opened)) if stored_format != "MPO" else ()
    width, height = opened.size
    if stored_format in ("JPEG", "MPO"):
        opened.draft(opened.mode, _within(opened.size, ENOUGH_SIDE))
    opened.load()
    with suppress(ValueError, TypeError, SyntaxError):  # damaged EXIF: the picture stands as it is stored
        ImageOps.exif_transpose(opened, in_place=True)
    turned = orientation in range(2, 9)
    if orientation in range(5, 9):
        width, height = height, width
    coloured = to_srgb(opened, deep=deep)
    fixes: list[Finding] = []
    if image_format != "JPEG":
        fixes.append(_fixed("converted_format", f"Converted from {image_format} to JPEG", image_format))
    if turned:
        fixes.append(_fixed("turned_upright", "Turned upright", orientation))
    fixes.extend(coloured.fixes)
    picture = _scaled_down(coloured.picture)
    if max(width, height) > MAX_SIDE:
        message = f"Scaled from {width} × {height} to {picture.width} × {picture.height}"
        fixes.append(_fixed("scaled_down", message, max(width, height), MAX_SIDE))
    return Decoded(picture, image_format, width, height, captured_on, metadata, tuple(fixes), notes)


def _scaled_down(picture: Image) -> Image:
    from PIL import Image as Images

    divisor = max(picture.size) // ENOUGH_SIDE
    if max(picture.size) > MAX_SIDE and divisor > 1:
        picture = picture.reduce(divisor)
    if max(picture.size) > MAX_SIDE:
        picture = picture.resize(_within(picture.size, MAX_SIDE), Images.Resampling.LANCZOS)
    return picture


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size scaled down to `side` pixels for its longer side; as it is where it fits."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _fixed(code: str, message: str, value: str | int | None = None, threshold: int | None = None) -> Finding:
    return Finding(code, Severity.FIXED, message, value, threshold)


def _read_metadata(opened: Image) -> tuple[tuple[str, ...], str | None, int]:
    """(kinds of metadata, capture day, EXIF orientation); what is damaged counts as absent."""
    info = opened.info
    kinds = [name for key, name in _INFO_KINDS.items() if info.get(key)]
    try:
        exif = opened.getexif()
        details = exif.get_ifd(_EXIF_IFD)
        if exif.get_ifd(_GPS_IFD):
            kinds.insert(0, "GPS")
        if getattr(opened, "text", None):
            kinds.append("text")
        orientation = int(exif.get(_ORIENTATION, 1))
        taken = str(details.get(_TAKEN) or details.get(_DIGITISED) or "")
    except Exception:  # noqa: BLE001 - EXIF is written by anybody; the picture matters
        return tuple(kinds), None, 1
    return tuple(kinds), _day(taken), orientation


_INFO_KINDS = {
    "exif": "EXIF",
    "xmp": "XMP",
    "XML:com.adobe.xmp": "XMP",
    "icc_profile": "ICC",
    "photoshop": "IPTC",
    "comment": "comment",
}


def _day(text: str) -> str | None:
    found = _DAY.match(text)
    if found is None or found[1] == "0000":
        return None
    return "-".join(found.groups())


def _several_pictures(opened: Image) -> list[Finding]:
    frames = getattr(opened, "n_frames", 1)
    if frames < 2:
        return []
    return [
        Finding(
            "several_pictures", Severity.NOTE, f"The first of {frames} pictures in the file is taken", frames
        )
    ]


@cache
def _register_formats() -> None:
    import pillow_heif
    from PIL import AvifImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401 - importing registers them

    # Phones send HEIC. Thumbnails and depth images inside are not wanted.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _pixels_in(message: str) -> int | None:
    found = re.search(r"\((\d+) pixels\)", message)
    return int(found[1]) if found else None


def _too_many_pixels(pixels: int | None) -> Finding:
    what = f"{pixels:,} pixels" if pixels else "Its header claims too many pixels"
    return Finding(
        "too_many_pixels",
        Severity.EXCLUDE,
        f"{what}, more than the {MAX_PIXELS:,} that are decoded",
        pixels,
        MAX_PIXELS,
        "Scale it down to at most 2,048 pixels a side: no trainer uses more",
    )


def _unreadable(data: bytes) -> Finding:
    if not data:
        return Finding(
            "empty_file", Severity.EXCLUDE, "The file is empty", 0, remedy="Copy or upload it again"
        )
    if _format_of(data):
        return _damaged(f"its {_format_of(data)} header is not understood")
    return Finding(
        "not_an_image",
        Severity.EXCLUDE,
        "Not an image, whatever its name says",
        remedy="Send JPEG, HEIC, PNG or WebP",
    )


def _damaged(cause: str) -> Finding:
    return Finding(
        "damaged",
        Severity.EXCLUDE,
        f"Damaged or cut off: it cannot be decoded to its end ({cause})",
        remedy="Copy or upload the original again",
    )


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return text or type(error).__name__


def _format_of(data: bytes) -> str | None:
    """The format that the first bytes announce, for what cannot be decoded."""
    if data[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF"}.get(data[8:12])
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
