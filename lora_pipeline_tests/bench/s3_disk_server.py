"""A bare S3 server for measuring: PUT, multipart upload, HEAD and GET on files.

For the bench only. moto takes 35 MB/s and keeps everything in memory, which would hide any cost of ours. It checks
no signature and knows no listing. Each connection takes so many bytes a second as its second argument says (0: as
fast as it can). Started as a process: prints its address, ends with its standard input.
"""

import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
BYTES_PER_SECOND = int(sys.argv[2]) if len(sys.argv) > 2 else 0
BUFFER = 1024 * 1024
MODIFIED = "Sun, 10 Nov 2024 10:00:00 GMT"


class S3Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rbufsize = BUFFER

    def do_PUT(self) -> None:
        path, query = self._target()
        part = query.get("partNumber")
        target = ROOT / query["uploadId"][0] / f"{int(part[0]):05}" if part else path
        target.parent.mkdir(parents=True, exist_ok=True)
        size = left = int(self.headers["Content-Length"])
        started = time.monotonic()
        buffer = memoryview(bytearray(BUFFER))
        with target.open("wb", buffering=0) as file:
            while left:
                got = self.rfile.readinto(buffer[: min(left, BUFFER)])
                file.write(buffer[:got])
                left -= got
                if BYTES_PER_SECOND:
                    time.sleep(max(0.0, started + (size - left) / BYTES_PER_SECOND - time.monotonic()))
        self._answer(200)

    def do_POST(self) -> None:
        path, query = self._target()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in query:
            upload = uuid.uuid4().hex
            body = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        else:
            self._join(path, ROOT / query["uploadId"][0])
            body = '<CompleteMultipartUploadResult><ETag>"joined"</ETag></CompleteMultipartUploadResult>'
        self._answer(200, body.encode())

    def _join(self, path: Path, folder: Path) -> None:
        """Remember the parts in their order: copying them would be work that no store does while a client waits."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["parts", *sorted(str(part) for part in folder.iterdir())]))

    def do_HEAD(self) -> None:
        parts = self._parts()
        self._answer(200 if parts else 404, length=sum(part.stat().st_size for part in parts))

    def do_GET(self) -> None:
        parts = self._parts()
        self._answer(200 if parts else 404, length=sum(part.stat().st_size for part in parts))
        for part in parts:
            with part.open("rb") as file:
                copyfileobj(file, self.wfile, BUFFER)

    def _parts(self) -> list[Path]:
        path, _ = self._target()
        if not path.exists():
            return []
        with path.open("rb") as file:
            joined = file.read(6) == b"parts\n"
        return [Path(line) for line in path.read_text().splitlines()[1:]] if joined else [path]

    def _target(self) -> tuple[Path, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return ROOT / "objects" / unquote(parts.path).lstrip("/"), parse_qs(
            parts.query, keep_blank_values=True
        )

    def _answer(self, status: int, body: bytes = b"", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", '"etag"')
        self.send_header("Last-Modified", MODIFIED)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3Requests)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
