"""What one photograph's own measurements say about its use in a training. Comparisons live in likeness and set_checks."""

from __future__ import annotations

from collections.abc import Iterator

from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.image_sets.names import is_apple_double
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import ImageRecord


def image_findings(name: str, image: ImageRecord, profile: ImageProfile) -> tuple[Finding, ...]:
    """All findings about one image under one profile: those of its inspection, and those of its measurements."""
    if is_apple_double(name):
        return (apple_double(),)
    return (*image.findings, *_short_side(image, profile), *_aspect(image, profile), *_blur(image, profile))


def apple_double() -> Finding:
    return Finding(
        "apple_double",
        Severity.EXCLUDE,
        "A file that macOS wrote beside the photograph, not an image",
        remedy="Delete it; the photograph itself has the same name without the leading ._",
    )


def _short_side(image: ImageRecord, profile: ImageProfile) -> Iterator[Finding]:
    if image.width is None or image.height is None:
        return
    side = min(image.width, image.height)
    if side < profile.min_short_side:
        yield Finding(
            "too_small",
            Severity.EXCLUDE,
            f"The shorter side has {side} pixels, fewer than {profile.min_short_side}",
            side,
            profile.min_short_side,
            "Upload the original instead of a thumbnail or screenshot, or include it deliberately",
        )
    elif side < profile.warn_short_side:
        yield Finding(
            "small",
            Severity.WARN,
            f"The shorter side has {side} pixels, fewer than {profile.warn_short_side}",
            side,
            profile.warn_short_side,
            "A larger original gives finer detail",
        )


def _aspect(image: ImageRecord, profile: ImageProfile) -> Iterator[Finding]:
    if not image.width or not image.height:
        return
    aspect = max(image.width, image.height) / min(image.width, image.height)
    if aspect > profile.max_aspect:
        yield Finding(
            "long_format",
            Severity.WARN,
            f"One side is {aspect:.1f} times the other, more than {profile.max_aspect:g}",
            round(aspect, 2),
            profile.max_aspect,
            "Crop it to the subject: the trainer cuts off the ends",
        )


def _blur(image: ImageRecord, profile: ImageProfile) -> Iterator[Finding]:
    sharpness = image.sharpness
    if sharpness is None or sharpness >= profile.soft_below:
        return
    if sharpness < profile.blurred_below:
        yield Finding(
            "blurred",
            Severity.WARN,
            f"Blurred (sharpness {sharpness:.0f}, less than {profile.blurred_below:g})",
            round(sharpness, 1),
            profile.blurred_below,
            "Replace it by a sharp photograph",
        )
    else:
        yield Finding(
            "soft",
            Severity.NOTE,
            f"Rather soft (sharpness {sharpness:.0f}, less than {profile.soft_below:g})",
            round(sharpness, 1),
            profile.soft_below,
        )
