"""The thresholds of the image checks, one profile a trainer. What is measured against them lives in the checks."""

from __future__ import annotations

from dataclasses import dataclass

MIN_IMAGES = 5
"""No trainer learns a face from fewer."""


@dataclass(frozen=True)
class ImageProfile:
    """What one trainer needs. Sides are in pixels of the upright original; distances in bits of 64."""

    name: str
    min_short_side: int
    """Shorter sides are excluded."""
    warn_short_side: int
    """Shorter sides are warned about: the trainer would have to enlarge."""
    min_images: int = MIN_IMAGES
    few_images: int = 10
    """Fewer are warned about; 10 to 20 are ideal for a person."""
    many_images: int = 30
    """More are warned about."""
    max_images: int = 100
    max_aspect: float = 2.0
    """Longer side divided by shorter: beyond it the trainer's crops lose most of the picture."""
    blurred_below: float = 20.0
    """Variance of the Laplacian at 512 px. Sharp photographs measure 374 to 3478, a blur of two pixels 4 to 17."""
    soft_below: float = 60.0
    near_duplicate_bits: int = 6
    """Recompression and halving move a perceptual hash by 0 bits, brightness by up to 6; different photographs
    differ by at least 28."""
    similar_bits: int = 10
    """A crop of two per cent moves it by up to 8."""
    shrunk_below: float = 0.7
    """Part of the previous version's images under which a retrain is suspicious."""


PROFILES = {
    "flux": ImageProfile("flux", min_short_side=512, warn_short_side=1024),
    # The photographs that pip packages carry are small; the demo says so instead of enlarging them.
    "demo": ImageProfile("demo", min_short_side=256, warn_short_side=256),
}


def profile_named(name: str) -> ImageProfile:
    """The profile of that name; ValueError names those there are."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"got image profile {name!r}; expected one of {', '.join(PROFILES)}") from None
