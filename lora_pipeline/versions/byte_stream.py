"""A download read forwards: exact reads over pieces of any size, gunzipping, and a limit on the bytes.

Knows nothing of archives or weights. Nothing here holds more than one piece of the caller's and one of its own.
"""

import zlib
from collections.abc import Iterable, Iterator

from lora_pipeline.versions.refusal import Refusal, WeightsRefused

PIECE_SIZE = 1024 * 1024


class ByteStream:
    """Pieces of bytes, read as one stream that cannot go back."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._at = 0

    def some(self, limit: int) -> bytes:
        """Between one and ``limit`` bytes, or none at the end."""
        while self._at >= len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        taken = self._piece[self._at : self._at + limit]
        self._at += len(taken)
        return taken

    def up_to(self, size: int) -> bytes:
        """``size`` bytes, or fewer where the stream ends."""
        taken = bytearray()
        while len(taken) < size and (more := self.some(size - len(taken))):
            taken += more
        return bytes(taken)

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes (fewer at the end) without passing them."""
        taken = self.up_to(size)
        self._piece, self._at = taken + self._piece[self._at :], 0
        return taken

    def rest(self) -> Iterator[bytes]:
        """What remains, in pieces of at most ``PIECE_SIZE``."""
        while piece := self.some(PIECE_SIZE):
            yield piece


def limited(pieces: Iterable[bytes], limit: int, what: str) -> Iterator[bytes]:
    """Pass the pieces on until they add up to more than ``limit`` bytes, then refuse ``what`` as too large."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limit:
            raise WeightsRefused(
                Refusal.TOO_LARGE,
                f"{what} is larger than the limit of {limit:,} bytes. If weights of this size are expected,"
                " raise the limit; otherwise look at what the training delivered",
            )
        yield piece


def gunzipped(stream: ByteStream) -> Iterator[bytes]:
    """The content of one gzip stream, at most ``PIECE_SIZE`` bytes at a time whatever its compression ratio."""
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # | 16: a gzip header and checksum are required
    for compressed in stream.rest():
        pending = compressed
        # Until nothing comes: output may wait inside zlib although all input is consumed.
        while piece := _inflated(inflate, pending):
            yield piece
            pending = inflate.unconsumed_tail
        if inflate.unused_data:
            raise WeightsRefused(
                Refusal.DAMAGED_ARCHIVE, "Something follows the end of the gzip stream. Download it again"
            )
    if not inflate.eof:
        raise WeightsRefused(
            Refusal.TRUNCATED,
            "The gzip stream ends before its checksum: the download was cut off. Download it again",
        )


def _inflated(inflate: "zlib._Decompress", compressed: bytes) -> bytes:
    try:
        return inflate.decompress(compressed, PIECE_SIZE)
    except zlib.error as error:
        raise WeightsRefused(
            Refusal.DAMAGED_ARCHIVE, f"The gzip stream is damaged ({error}). Download it again"
        ) from None
