"""Downloading a dataset as a trainer does: over HTTP, under a cap, every failure an answer."""

from __future__ import annotations

import base64
import tempfile
from binascii import Error as BadBase64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    import httpx

MEMORY_BYTES = 16 * 1024**2


@contextmanager
def spool() -> Iterator[BinaryIO]:
    """Where a dataset goes: memory, and a temporary file if it is large."""
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        yield cast("BinaryIO", file)


async def download(
    client: httpx.AsyncClient, address: str, into: BinaryIO, cap: int, name: str
) -> str | None:
    """Bytes behind an http or data address, up to the cap; the error where there are none.

    `name` is what the trainer calls the address, for its words. The address itself is a bearer secret, so that an
    error of the connection is told by its type.
    """
    import httpx

    if address.startswith("data:"):
        try:
            into.write(base64.b64decode(address.partition(",")[2], validate=True))
        except BadBase64:
            return f"Failed to read {name}: not base64"
        return None
    try:
        async with client.stream("GET", address) as answer:
            if answer.status_code != 200:
                return f"Failed to download {name}: HTTP Error {answer.status_code}: {answer.reason_phrase}"
            total = 0
            async for chunk in answer.aiter_bytes(1 << 20):
                total += len(chunk)
                if total > cap:
                    return f"Failed to download {name}: more than {cap} bytes"
                into.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return f"Failed to download {name}: {type(error).__name__}"
    return None
