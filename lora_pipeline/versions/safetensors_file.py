"""Reading and checking the header of a .safetensors file, without reading its tensors.

The format: eight bytes with the header's length (little-endian), the header as JSON, then the tensors' bytes without
hole, overlap or remainder. The checks here are those of the safetensors library and stricter where it is lenient:
it takes duplicate JSON keys, and keys it does not know. What the tensors mean (whether they are a LoRA) and their
hashes are elsewhere.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Never

from lora_pipeline.versions.refusal import Refusal, WeightsRefused

LENGTH_BYTES = 8
FORMAT_MAX_HEADER = 100_000_000
"""The safetensors format's own limit, in bytes."""
MAX_HEADER = 16 * 1024 * 1024
"""What is parsed here, in bytes: a Flux LoRA's header is about 0.1 MB, with a trainer's tag statistics some MB.
A header at the format's limit takes more than a gigabyte of memory to parse."""
FIRST_READ = 256 * 1024
"""One ranged read of this size holds the whole header of an ordinary LoRA."""
MAX_DIMENSIONS = 32

_DTYPES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32",
    64: "U64 I64 F64 C64",
}
DTYPE_BITS: Mapping[str, int] = {
    name: bits for bits, names in _DTYPES_BY_BITS.items() for name in names.split()
}
"""Every dtype that safetensors 0.8 knows, and the bits of one element."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the header; ``start`` and ``end`` count bytes from the beginning of the tensor data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """What the header says, checked against the file's size."""

    size: int
    """Bytes of the whole file."""
    data_start: int
    """Where in the file the tensors' bytes begin."""
    tensors: tuple[Tensor, ...] = field(repr=False)
    """In the order in which their bytes lie in the file."""
    metadata: Mapping[str, str] = field(repr=False)
    """``__metadata__`` as it stands in the file: unbounded text that anybody may have written."""


def read_header(get_range: Callable[[int, int], bytes], size: int) -> SafetensorsHeader:
    """Read and check the header of a file of ``size`` bytes, in one ranged read or two.

    ``get_range(start, length)`` gives up to ``length`` bytes from ``start``, fewer only where the file ends.
    Raises WeightsRefused; what ``get_range`` raises passes through.
    """
    beginning = get_range(0, min(size, FIRST_READ)) if size else b""
    if len(beginning) < LENGTH_BYTES:
        raise truncated(f"it has {len(beginning)} bytes, less than the {LENGTH_BYTES} of the header's length")
    length = int.from_bytes(beginning[:LENGTH_BYTES], "little")
    # A length far beyond the file is no cut file: other formats' first bytes make such numbers.
    if length > FORMAT_MAX_HEADER or length > max(MAX_HEADER, size):
        raise invalid(
            f"its first bytes {beginning[:LENGTH_BYTES].hex(' ')} announce a header of {length:,} bytes in a file of"
            f" {size:,}, so it is probably another kind of file"
        )
    if beginning[LENGTH_BYTES : LENGTH_BYTES + 1] not in (b"{", b""):
        raise invalid(
            f"its header begins with the bytes {beginning[:12].hex(' ')} and not with a length and '{{'"
        )
    data_start = LENGTH_BYTES + length
    if data_start > size:
        raise truncated(f"it has {size:,} bytes and its header alone takes {data_start:,}")
    if length > MAX_HEADER:
        raise WeightsRefused(
            Refusal.TOO_LARGE,
            f"The safetensors header is {length:,} bytes, more than the {MAX_HEADER:,} that are read; a LoRA's is"
            " some hundred thousand. Look at what was trained",
        )
    text = beginning[LENGTH_BYTES:data_start]
    if len(text) < length:
        text += get_range(LENGTH_BYTES + len(text), length - len(text))
    if len(text) < length:
        raise truncated(f"reading its header gave {len(text):,} of {length:,} bytes")
    return parse_header(text, size)


def parse_header(text: bytes, size: int) -> SafetensorsHeader:
    """Check the header's JSON against the size of the whole file, in bytes. Raises WeightsRefused."""
    entries = _json_object(text)
    metadata = _metadata(entries.pop("__metadata__", {}))
    tensors = sorted(
        (_tensor(name, entry) for name, entry in entries.items()),
        key=lambda tensor: (tensor.start, tensor.end),
    )
    if not tensors:
        raise invalid("it holds no tensor")
    data_start = LENGTH_BYTES + len(text)
    _check_layout(tensors, size - data_start)
    return SafetensorsHeader(size, data_start, tuple(tensors), metadata)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        # Decoded here because json.loads would also take UTF-16 and UTF-32, which the format forbids.
        header = json.loads(
            text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        # The exception's own text may quote the file.
        raise invalid(f"its header is no JSON in UTF-8 ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise invalid("its header is no JSON object")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise invalid("its header has the same key twice")
    return entries


def _no_constant(name: str) -> Never:
    raise ValueError(name)


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise invalid("its __metadata__ is not an object with text values")
    return value


def _tensor(name: str, entry: object) -> Tensor:
    if not _is_unicode(name):
        raise invalid(f"the tensor name {name[:200]!r} is no Unicode text")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise invalid(f"the entry of {_shown(name)} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise invalid(f"the dtype of {_shown(name)} is unknown")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise invalid(f"the shape of {_shown(name)} is not a list of at most {MAX_DIMENSIONS} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise invalid(f"the data_offsets of {_shown(name)} are not two positions")
    start, end = offsets
    if (end - start) * 8 != math.prod(shape) * DTYPE_BITS[dtype]:
        raise invalid(f"the data_offsets of {_shown(name)} do not fit its shape and dtype")
    return Tensor(name, dtype, tuple(shape), start, end)


def _are_sizes(value: object) -> bool:
    # type() rather than isinstance: True is an int.
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _check_layout(tensors: list[Tensor], data_size: int) -> None:
    """Each tensor must begin where the one before it ends, and the last must end with the file."""
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            what = "overlaps the tensor before it" if tensor.start < position else "leaves a hole before it"
            raise invalid(f"{_shown(tensor.name)} {what}")
        position = tensor.end
    if position > data_size:
        raise truncated(f"its tensors take {position:,} bytes and only {data_size:,} are there")
    if position < data_size:
        raise invalid(f"{data_size - position:,} bytes follow the last tensor")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}…")


def _is_unicode(text: str) -> bool:
    """False for a lone surrogate, which JSON can spell and UTF-8 cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def invalid(what: str) -> WeightsRefused:
    """The file breaks the format: another download of the same file will not help."""
    return WeightsRefused(
        Refusal.INVALID_HEADER,
        f"The file is not valid safetensors: {what}. Look at what the training delivered",
    )


def truncated(what: str) -> WeightsRefused:
    """The file is shorter than it says."""
    return WeightsRefused(
        Refusal.TRUNCATED, f"The safetensors file is cut off: {what}. Copy or download it again"
    )
