"""Whether weights are numbers: NaN and infinity, found in raw bytes without a numerical library.

A float is not finite when all bits of its exponent are set (in some 8-bit formats one byte value stands for NaN).
The exponent begins in the last byte of a little-endian float, so the last bytes are searched at the speed of the
standard library's byte functions; where the exponent reaches into the byte before, that one decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_pipeline.versions.refusal import Refusal, WeightsRefused
from lora_pipeline.versions.safetensors_file import Tensor


@dataclass(frozen=True)
class _FloatFormat:
    width: int
    """Bytes of one number."""
    last: bytes
    """Values of the last byte that may mean NaN or infinity."""
    before: int = 0
    """Bits that must be set in the byte before it as well."""


_FORMATS: Mapping[str, _FloatFormat] = {
    "F16": _FloatFormat(2, bytes.fromhex("7c7d7e7ffcfdfeff")),
    "BF16": _FloatFormat(2, bytes.fromhex("7fff"), 0x80),
    "F32": _FloatFormat(4, bytes.fromhex("7fff"), 0x80),
    "C64": _FloatFormat(4, bytes.fromhex("7fff"), 0x80),
    "F64": _FloatFormat(8, bytes.fromhex("7fff"), 0xF0),
    "F8_E5M2": _FloatFormat(1, bytes.fromhex("7c7d7e7ffcfdfeff")),
    "F8_E4M3": _FloatFormat(1, bytes.fromhex("7fff")),
    "F8_E8M0": _FloatFormat(1, bytes.fromhex("ff")),
    "F8_E5M2FNUZ": _FloatFormat(1, bytes.fromhex("80")),
    "F8_E4M3FNUZ": _FloatFormat(1, bytes.fromhex("80")),
}
"""Integers and the 4- and 6-bit floats have no such values."""


def check_finite(tensor: Tensor, piece: bytes) -> None:
    """Refuse a piece (whole elements) of ``tensor`` that holds NaN or infinity."""
    layout = _FORMATS.get(tensor.dtype)
    if layout is not None and _has_non_finite(layout, piece):
        raise WeightsRefused(
            Refusal.NOT_FINITE,
            f"The tensor {tensor.name[:200]!r} holds NaN or infinite weights: the training diverged."
            " Train again, for instance with a lower learning rate",
        )


def _has_non_finite(layout: _FloatFormat, piece: bytes) -> bool:
    last = piece[layout.width - 1 :: layout.width]
    if len(last.translate(None, layout.last)) == len(last):
        return False
    if not layout.before:
        return True
    before = piece[layout.width - 2 :: layout.width]
    return any(
        high in layout.last and low & layout.before == layout.before
        for high, low in zip(last, before, strict=True)
    )
