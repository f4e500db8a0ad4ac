"""An S3 server that holds a bucket in memory and lists it as fast as a client can read.

For measuring listings, where moto (3,500 keys a second) would hide any cost of ours, and for faults that moto cannot
make. It answers ListObjectsV2, ListObjectVersions, GetBucketVersioning and GET, and checks no signature. Started as a
process it makes so many objects as its first argument says (versioned if its second is `versions`), prints its
address, and ends with its standard input.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bench"
MODIFIED = "2026-03-01T12:00:00.000Z"
PAGE = 1_000
_ALL = "\U0010ffff"


@dataclass
class MemoryBucket:
    """Keys and their content, changed by whoever holds it; what is listed is rendered anew after a change."""

    page: int = PAGE
    versioned: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    fails: Callable[[str], bool] = lambda _: False
    """Asked for each listing with the key behind which it goes on: whether to answer 503."""
    _rendered: tuple[list[str], list[str]] | None = None

    def put(self, key: str, content: bytes) -> None:
        self.files[key] = content
        self._rendered = None

    def remove(self, key: str) -> None:
        del self.files[key]
        self._rendered = None

    def listing(self) -> tuple[list[str], list[str]]:
        """The keys in S3's order, and the XML of each."""
        if self._rendered is None:
            keys = sorted(self.files)
            self._rendered = keys, [self._entry(key) for key in keys]
        return self._rendered

    def etag(self, key: str) -> str:
        return f'"{hashlib.md5(self.files[key], usedforsecurity=False).hexdigest()}"'

    def _entry(self, key: str) -> str:
        told = (
            f"<Key>{quote_plus(key)}</Key><LastModified>{MODIFIED}</LastModified><ETag>{escape(self.etag(key))}</ETag>"
            f"<Size>{len(self.files[key])}</Size><StorageClass>STANDARD</StorageClass>"
        )
        if self.versioned:
            version = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
            return f"<Version>{told}<VersionId>{version}</VersionId><IsLatest>true</IsLatest></Version>"
        return f"<Contents>{told}</Contents>"


def _page(bucket: MemoryBucket, prefix: str, after: str) -> tuple[list[str], str | None]:
    """The entries of the next page, and the last key where more follow."""
    keys, entries = bucket.listing()
    start = max(bisect_right(keys, after), bisect_right(keys, prefix) if prefix else 0)
    end = bisect_right(keys, prefix + _ALL) if prefix else len(keys)
    stop = min(start + bucket.page, end)
    return entries[start:stop], keys[stop - 1] if stop < end else None


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: MemoryBucket
    # Answers go out at once: held back, each would wait for the client's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        _, _, key = parts.path[1:].partition("/")
        if key:
            self._object(unquote(key))
        elif "versioning" in query:
            status = "<Status>Enabled</Status>" if self.bucket.versioned else ""
            self._xml(f"<VersioningConfiguration>{status}</VersioningConfiguration>")
        elif "versions" in query:
            self._list("ListVersionsResult", query, query.get("key-marker", ""))
        else:
            after = query.get("continuation-token") or query.get("start-after", "")
            self._list("ListBucketResult", query, after)

    def _list(self, name: str, query: Mapping[str, str], after: str) -> None:
        if self.bucket.fails(after):
            self._answer(503, b"<Error><Code>ServiceUnavailable</Code></Error>")
            return
        entries, last = _page(self.bucket, query.get("prefix", ""), after)
        more = ""
        if last is not None:
            marker = quote_plus(last)
            more = (
                f"<NextKeyMarker>{marker}</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker>"
                if self.bucket.versioned
                else f"<NextContinuationToken>{escape(last)}</NextContinuationToken>"
            )
        truncated = "false" if last is None else "true"
        self._xml(
            f"<{name}><EncodingType>url</EncodingType><IsTruncated>{truncated}</IsTruncated>{more}"
            f"{''.join(entries)}</{name}>"
        )

    def _object(self, key: str) -> None:
        content = self.bucket.files.get(key)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if self.headers.get("If-Match", self.bucket.etag(key)) != self.bucket.etag(key):
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content)) + 1, len(content))
        headers = {
            "ETag": self.bucket.etag(key),
            "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
            "Last-Modified": "Sun, 01 Mar 2026 12:00:00 GMT",
        }
        self._answer(206, content[start:end], headers)

    def _xml(self, body: str) -> None:
        self._answer(200, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode())

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/xml"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(bucket: MemoryBucket) -> Iterator[str]:
    """The server's address, for as long as the block lasts. Every bucket's name means this one."""
    requests: Any = type("Requests", (_Requests,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), requests)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def made(count: int, *, versioned: bool) -> MemoryBucket:
    """A bucket with so many LoRA files, as an installation of years would have it."""
    bucket = MemoryBucket(versioned=versioned)
    bucket.files = {key_of(number): number.to_bytes(8, "big") for number in range(count)}
    return bucket


def key_of(number: int) -> str:
    """The key of one of them: a hash in it, so that neighbours in time are none in the listing."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    return f"loras/user-{number % 50_000:05}/{digest}.safetensors"


def main() -> None:
    with serving(made(int(sys.argv[1]), versioned="versions" in sys.argv[2:])) as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
