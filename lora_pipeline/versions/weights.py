"""LoRA weights as evidence: what a download or a file really is, or the reason why it is refused.

`read_weights` takes a provider's delivery (a tar, a gzipped tar or a bare .safetensors file) while it is downloaded,
`inspect_safetensors` takes a file that is already here; both end in the same checks and the same record. Where the
weights come from and where they are archived belongs to the callers; nothing here opens a connection.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from lora_pipeline.versions.byte_stream import ByteStream, gunzipped, limited
from lora_pipeline.versions.lora_layers import lora_rank
from lora_pipeline.versions.refusal import Refusal, WeightsRefused
from lora_pipeline.versions.safetensors_file import LENGTH_BYTES, SafetensorsHeader, read_header
from lora_pipeline.versions.tensor_hashes import hash_file
from lora_pipeline.versions.weights_archive import BLOCK, starts_a_tar, take_weights

__all__ = [
    "Refusal",
    "VerifiedWeights",
    "WeightsRefused",
    "inspect_safetensors",
    "read_header",
    "read_weights",
]

MAX_METADATA_ENTRIES = 100
MAX_METADATA_TEXT = 1_000
"""Characters of a name or value that are kept: training parameters are short, tag statistics and file lists long."""


@dataclass(frozen=True)
class VerifiedWeights:
    """A LoRA that was read to its last byte. The hashes are lower-case hexadecimal."""

    content_key: str
    """The LoRA's identity: SHA-256 over its sorted tensors (tensor_hashes.py gives the framing)."""
    file_sha256: str
    autov2: str
    """First ten digits of ``file_sha256``."""
    autov3: str
    """SHA-256 of everything after the header; blind to names and shapes."""
    size: int
    """Bytes of the .safetensors file."""
    tensor_count: int
    rank: int | None
    """None where layers have different ranks."""
    network_type: str = "lora"
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The header's own claims, shortened; fit for a JSON column of any database. Evidence of nothing."""
    path: Path | None = None
    """The file that was read, where it has a name."""


def read_weights(chunks: Iterable[bytes], into: Path | BinaryIO, *, cap_bytes: int) -> VerifiedWeights:
    """Read a provider's delivery to its end and put its one .safetensors file into ``into``.

    ``into`` is a path, which appears (0600) only if the weights are verified and otherwise stays as it was, or an
    empty file open for reading and writing. ``cap_bytes`` limits the delivery, what it unpacks to, and the weights.
    Memory stays bounded by a few megabytes and the size of one chunk.

    Raises WeightsRefused, which says whether another download may help; what ``chunks`` raises passes through.
    """
    if not isinstance(into, Path):
        return _receive(chunks, into, cap_bytes)
    descriptor, name = tempfile.mkstemp(dir=into.parent, prefix=f".{into.name[:100]}.")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            verified = _receive(chunks, file, cap_bytes)
        Path(name).replace(into)
    finally:
        Path(name).unlink(missing_ok=True)
    return replace(verified, path=into)


def inspect_safetensors(file: Path | BinaryIO) -> VerifiedWeights:
    """Check and hash a LoRA that lies in a file: a path, or a file open for reading that can seek.

    Raises WeightsRefused.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return replace(inspect_safetensors(opened), path=file)
    header = read_header(lambda start, length: _read_at(file, start, length), file.seek(0, os.SEEK_END))
    rank = lora_rank(header.tensors)
    hashes = hash_file(file, header)
    return VerifiedWeights(
        content_key=hashes.content_key,
        file_sha256=hashes.file_sha256,
        autov2=hashes.autov2,
        autov3=hashes.autov3,
        size=header.size,
        tensor_count=len(header.tensors),
        rank=rank,
        metadata=shortened_metadata(header),
    )


def shortened_metadata(header: SafetensorsHeader) -> dict[str, str]:
    """The header's metadata as it may be stored: what is too long is replaced by its length.

    NUL and lone surrogates, which JSON can spell and PostgreSQL refuses, become the replacement character.
    """
    kept = sorted(item for item in header.metadata.items() if len(item[0]) <= MAX_METADATA_TEXT)
    return {
        _storable(name): _storable(text)
        if len(text) <= MAX_METADATA_TEXT
        else f"({len(text):,} characters left out)"
        for name, text in kept[:MAX_METADATA_ENTRIES]
    }


def _receive(chunks: Iterable[bytes], file: BinaryIO, cap_bytes: int) -> VerifiedWeights:
    stream = ByteStream(limited(chunks, cap_bytes, "The delivery"))
    if stream.peek(2) == b"\x1f\x8b":
        stream = ByteStream(limited(gunzipped(stream), cap_bytes, "The unpacked delivery"))
    beginning = stream.peek(BLOCK)
    if _starts_safetensors(beginning):
        file.writelines(stream.rest())
        file.flush()
        return inspect_safetensors(file)
    if len(beginning) == BLOCK and starts_a_tar(beginning):
        take_weights(stream, file, cap_bytes=cap_bytes)
        file.flush()
        return _inspect_member(file)
    raise _not_weights(beginning)


def _inspect_member(file: BinaryIO) -> VerifiedWeights:
    """A file that is short inside an archive that arrived whole was packed short: no download will mend it."""
    try:
        return inspect_safetensors(file)
    except WeightsRefused as refused:
        if refused.code is not Refusal.TRUNCATED:
            raise
        raise WeightsRefused(
            Refusal.INCOMPLETE_MEMBER,
            f"The archive arrived whole, but the .safetensors file in it ({file.seek(0, os.SEEK_END):,} bytes) ends"
            " before its tensors do. Look at the training's log",
        ) from refused


def _starts_safetensors(beginning: bytes) -> bool:
    """A length whose high bytes are zero, then JSON: neither text nor a tar's first name looks like that."""
    return beginning[4:LENGTH_BYTES] == bytes(4) and beginning[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x1f\x8b", "a gzip file inside another"),
)
_TEXTS = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
# The only parts of an error page that are quoted: others may echo keys, signatures or whole URLs.
_QUOTABLE = re.compile(rb"<(?:code|title)>([\w .,'()-]{1,80})</", re.IGNORECASE)


def _not_weights(beginning: bytes) -> WeightsRefused:
    """What a body that is neither archive nor weights looks like, from its first bytes."""
    expected = "expected a tar archive or a .safetensors file"
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, what in _TEXTS:
        if text.startswith(start):
            quoted = _QUOTABLE.search(beginning)
            said = f" saying {quoted[1].decode('ascii', 'replace')!r}" if quoted else ""
            return WeightsRefused(
                Refusal.ERROR_PAGE,
                f"The delivery is {what}{said}; {expected}. Download it again, or ask the provider for a new address",
            )
    for start, what in _SIGNATURES:
        if beginning.startswith(start):
            return WeightsRefused(
                Refusal.NOT_AN_ARCHIVE,
                f"The delivery is {what}; {expected}. Look at what the training delivered",
            )
    if len(beginning) < BLOCK:
        return WeightsRefused(
            Refusal.TRUNCATED,
            f"The delivery ended after {len(beginning)} bytes; {expected}. Download it again",
        )
    return WeightsRefused(
        Refusal.NOT_AN_ARCHIVE,
        f"The delivery begins with the bytes {beginning[:8].hex(' ')}; {expected}. Look at what the training delivered",
    )


def _read_at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _storable(text: str) -> str:
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)
