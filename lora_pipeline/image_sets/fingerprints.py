"""Measurements of a picture's content: perceptual hash, its mirror image's, and sharpness.

Taken from the upright sRGB picture that the trainer will see. What the numbers mean is decided by the checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

HASH_SIDE = 8
DCT_SIDE = 32
SHARPNESS_SIDE = 512
"""Pixels of the longer side at which sharpness is measured: at full size, noise would count as detail."""


@dataclass(frozen=True)
class Fingerprints:
    """Hashes as 16 hexadecimal digits; sharpness is the variance of the Laplacian."""

    phash: str
    phash_mirror: str
    sharpness: float


def fingerprints(picture: Image) -> Fingerprints:
    """Measure an RGB picture."""
    import numpy as np
    from PIL import Image

    grey = picture.convert("L")
    grey.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small = grey.resize((DCT_SIDE, DCT_SIDE), Image.Resampling.LANCZOS)
    coefficients = _low_frequencies(np.asarray(small, dtype=np.float64))
    # The cosine transform of a mirrored picture differs only in the sign of its odd columns.
    mirrored = coefficients * np.array([1.0, -1.0] * (HASH_SIDE // 2))
    return Fingerprints(
        phash=_bits_above_median(coefficients),
        phash_mirror=_bits_above_median(mirrored),
        sharpness=_laplacian_variance(np.asarray(grey, dtype=np.float64)),
    )


def _low_frequencies(pixels: Array) -> Array:
    basis = _cosines()
    return basis @ pixels @ basis.T


@cache
def _cosines() -> Array:
    """The first rows of the type-II discrete cosine transform over 32 samples."""
    import numpy as np

    row = np.arange(HASH_SIDE)[:, None]
    column = np.arange(DCT_SIDE)[None, :]
    return np.asarray(2 * np.cos(np.pi * row * (2 * column + 1) / (2 * DCT_SIDE)))


def _bits_above_median(coefficients: Array) -> str:
    import numpy as np

    # Rounded so that one picture gives one hash on every machine: a flat one has only noise around zero.
    rounded = coefficients.round(6)
    bits = (rounded > np.median(rounded)).ravel()
    return np.packbits(bits).tobytes().hex()


def _laplacian_variance(grey: Array) -> float:
    if min(grey.shape) < 3:
        return 0.0
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(edges.var())
