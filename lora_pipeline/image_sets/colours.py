"""Any colour representation to 8-bit sRGB, as people see it: profiles applied, transparency on white."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_pipeline.image_sets.findings import Finding, Severity

if TYPE_CHECKING:
    from PIL.Image import Image

_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


@dataclass(frozen=True)
class Coloured:
    """An RGB picture and what was done to its colours."""

    picture: Image
    fixes: tuple[Finding, ...]


def to_srgb(image: Image, *, deep: bool = False) -> Coloured:
    """The image in 8-bit sRGB. Raises ValueError for a mode that has no such meaning (depth maps in floats).

    `deep` says that the file had 16 bits a channel, which Pillow reduces to 8 while loading colour.
    """
    profile = image.info.get("icc_profile")
    fixes: list[Finding] = []
    if image.mode in _DEEP_MODES:
        image = _eight_bits(image)
        fixes.append(_fixed("converted_colour", "16-bit greyscale reduced to 8-bit RGB", "16-bit"))
    elif deep:
        fixes.append(_fixed("converted_colour", "16-bit colour reduced to 8-bit RGB", "16-bit"))
    if image.has_transparency_data:
        image, flattened = _on_white(image)
        if flattened:
            fixes.append(_fixed("flattened_alpha", "Transparency laid on white", "alpha"))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed brightness")
    if profile:
        converted = _by_profile(image, profile)
        if converted is not None:
            named = "CMYK to RGB" if image.mode == "CMYK" else "to sRGB"
            code = "converted_colour" if image.mode == "CMYK" else "converted_profile"
            return Coloured(
                converted, (*fixes, _fixed(code, f"Colours converted {named} by their profile", image.mode))
            )
    if image.mode != "RGB":
        if not fixes and image.mode not in ("P", "1"):
            message = (
                "Greyscale stored as RGB"
                if image.mode == "L"
                else f"Colours converted from {image.mode} to RGB"
            )
            fixes.append(_fixed("converted_colour", message, image.mode))
        image = image.convert("RGB")
    return Coloured(image, tuple(fixes))


def _fixed(code: str, message: str, value: str) -> Finding:
    return Finding(code, Severity.FIXED, message, value)


def _eight_bits(image: Image) -> Image:
    import numpy as np
    from PIL import Image as Images

    values = np.asarray(image)
    deep = bool(values.size) and int(values.max()) > 255
    return Images.fromarray((values >> 8 if deep else values).clip(0, 255).astype(np.uint8))


def _on_white(image: Image) -> tuple[Image, bool]:
    """(the picture on white, whether anything showed through)."""
    from PIL import Image as Images

    layered = image.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    white = Images.new("RGB", layered.size, (255, 255, 255))
    white.paste(layered, mask=layered.getchannel("A"))
    return white, lowest != 255


def _by_profile(image: Image, profile: bytes) -> Image | None:
    """The image in sRGB; None where its profile already is sRGB, does not fit its mode, or is damaged."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _is_srgb(ImageCms.getProfileDescription(source)):
            return None
        expected = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}.get(image.mode)
        if expected is None or source.profile.xcolor_space != expected:
            return None
        return ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _is_srgb(description: str) -> bool:
    text = description.strip().lower()
    return (text.startswith("srgb") and "linear" not in text) or text == "c2"
