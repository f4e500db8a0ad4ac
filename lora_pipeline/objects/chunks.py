"""Turning what a caller hands over (a file, or pieces of any size) into an iterator whose own failures stay its own."""

from collections.abc import Iterator

from lora_pipeline.objects.store import READ_SIZE, Chunks


class ChunkSource:
    """Pieces to be stored, remembering what the caller's side raised.

    A reader that raises FileNotFoundError for a missing photo must not be taken for a store that says "not found":
    ``error`` tells the two apart.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._pieces = pieces_of(chunks)
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise

    def up_to(self, size: int) -> tuple[bytes, bool]:
        """Read at least ``size`` bytes, or all there are; the flag tells whether that was the end."""
        buffer = bytearray()
        for piece in self:
            buffer += piece
            if len(buffer) > size:
                return bytes(buffer), False
        return bytes(buffer), True


def pieces_of(chunks: Chunks) -> Iterator[bytes]:
    """The pieces of a file open in binary mode, or of any iterable of bytes."""
    read = getattr(chunks, "read", None)
    if read is None:
        yield from chunks
        return
    while piece := read(READ_SIZE):
        yield piece
