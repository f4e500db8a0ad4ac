"""The hashes of a checked .safetensors file, in bounded memory and, for most files, in one pass.

**Content key**: SHA-256 over the tensors in the order of their names (as UTF-8 bytes). Of each tensor, in this
order, with every number an unsigned 64-bit little-endian integer:

1. the length of the name in bytes, the name in UTF-8;
2. the length of the dtype in bytes, the dtype in ASCII as the header spells it (``F16``);
3. the number of dimensions, then each dimension;
4. the length of the tensor's bytes, the bytes as they lie in the file.

Nothing stands between tensors, before the first or after the last. So the key knows neither the order of the tensors
in the file nor the header's metadata or spacing: what only these distinguish is the same LoRA.

**AutoV2** is the first ten hexadecimal digits of the file's SHA-256; **AutoV3** (kohya's ``sshs_model_hash``) the
SHA-256 of everything after the header. AutoV3 does not see names and shapes, and both occur embedded in metadata,
where anybody can write them: they are names that others use, computed here, and never an identity.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from lora_pipeline.versions.finite_weights import check_finite
from lora_pipeline.versions.safetensors_file import SafetensorsHeader, Tensor, truncated

PIECE_SIZE = 1024 * 1024  # a multiple of every dtype's width, so no element is cut in two


@dataclass(frozen=True)
class FileHashes:
    """Lower-case hexadecimal."""

    content_key: str
    file_sha256: str
    autov3: str

    @property
    def autov2(self) -> str:
        return self.file_sha256[:10]


def hash_file(file: BinaryIO, header: SafetensorsHeader) -> FileHashes:
    """Read the whole file once and hash it; a second time only where names and bytes lie in different orders.

    Raises WeightsRefused (``truncated``, ``not_finite``).
    """
    by_name = sorted(header.tensors, key=lambda tensor: tensor.name.encode())
    in_name_order = by_name == list(header.tensors)
    of_file, of_data, of_content = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    of_file.update(_bytes_at(file, 0, header.data_start))
    for tensor in header.tensors:
        if in_name_order:
            of_content.update(framing(tensor))
        for piece in _pieces(file, header, tensor):
            of_file.update(piece)
            of_data.update(piece)
            check_finite(tensor, piece)
            if in_name_order:
                of_content.update(piece)
    if not in_name_order:
        for tensor in by_name:
            of_content.update(framing(tensor))
            for piece in _pieces(file, header, tensor):
                of_content.update(piece)
    return FileHashes(of_content.hexdigest(), of_file.hexdigest(), of_data.hexdigest())


def framing(tensor: Tensor) -> bytes:
    """What the content key takes in front of a tensor's bytes."""
    name, dtype = tensor.name.encode(), tensor.dtype.encode("ascii")
    numbers = (len(tensor.shape), *tensor.shape, tensor.end - tensor.start)
    return b"".join((_u64(len(name)), name, _u64(len(dtype)), dtype, *map(_u64, numbers)))


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _pieces(file: BinaryIO, header: SafetensorsHeader, tensor: Tensor) -> Iterator[bytes]:
    for start in range(tensor.start, tensor.end, PIECE_SIZE):
        yield _bytes_at(file, header.data_start + start, min(PIECE_SIZE, tensor.end - start))


def _bytes_at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    data = file.read(length)
    if len(data) < length:
        raise truncated(
            f"reading {length:,} bytes at {start:,} gave {len(data):,}: the file shrank while it was read"
        )
    return data
