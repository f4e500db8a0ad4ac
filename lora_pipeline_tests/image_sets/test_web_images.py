"""Fetching images by address, from real servers that try to lead us elsewhere, or never to end."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lora_pipeline.image_sets.web_images import (
    FetchRules,
    ImagesUnavailable,
    TooManyImages,
    fetch_images,
)

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """A web server whose every path does what the test says; it remembers what it was asked."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(path, Host header)"""

    def rules(self, **changes: object) -> FetchRules:
        values: dict[str, object] = {"wait": 2.0, "private_hosts": frozenset({f"images.example:{self.port}"})}
        return FetchRules(**(values | changes))  # type: ignore[arg-type]

    def url(self, path: str, host: str = "images.example") -> str:
        return f"http://{host}:{self.port}{path}"


def body(content: bytes, status: int = 200, length: int | None = None, location: str = "") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.send_header("Location", location)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirect(to: str) -> Answer:
    return body(b"", 302, location=to)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, self.headers["Host"]))
            with suppress(OSError):
                found.answers.get(self.path.partition("?")[0], body(b"gone", 404))(self)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    found.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    listening.shutdown()
    listening.server_close()


def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_images_come_in_their_order_under_their_names_without_what_signed_them(
    server: Server, tmp_path: Path
) -> None:
    server.answers = {f"/{n}.jpg": body(f"image {n}".encode()) for n in range(6)}
    urls = [server.url(f"/{n}.jpg?signature=secret{n}") for n in range(6)]
    sources = fetch_images(urls, tmp_path, server.rules(), here)
    assert [source.name for source in sources] == [f"{n}.jpg" for n in range(6)]
    assert [b"".join(source.open()) for source in sources] == [f"image {n}".encode() for n in range(6)]
    assert all("secret" not in f"{source.address}{source.fingerprint}" for source in sources)
    assert {host for _, host in server.asked} == {f"images.example:{server.port}"}


def test_a_private_address_is_not_even_connected_to(server: Server, tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1"):
        with pytest.raises(ImagesUnavailable, match=r"private network|no address"):
            fetch_images([server.url("/1.jpg", host)], tmp_path, FetchRules(wait=2.0))
    assert server.asked == []


def test_a_redirect_into_a_private_network_is_not_followed(server: Server, tmp_path: Path) -> None:
    server.answers["/1.jpg"] = redirect(f"http://localhost:{server.port}/secret")
    server.answers["/secret"] = body(b"secret")
    with pytest.raises(ImagesUnavailable, match="private network"):
        fetch_images([server.url("/1.jpg")], tmp_path, server.rules(), here)
    server.answers["/1.jpg"] = redirect("file:///etc/passwd")
    with pytest.raises(ImagesUnavailable, match="https://"):
        fetch_images([server.url("/1.jpg")], tmp_path, server.rules(), here)
    assert [path for path, _ in server.asked] == ["/1.jpg", "/1.jpg"]


def test_redirects_are_followed_a_few_times_and_judged_each_time(server: Server, tmp_path: Path) -> None:
    server.answers = {"/a": redirect("/b"), "/b": redirect("c?x=1"), "/c": body(b"image")}
    (source,) = fetch_images([server.url("/a")], tmp_path, server.rules(), here)
    assert (source.name, b"".join(source.open())) == ("a", b"image")
    server.answers["/b"] = redirect("/a")
    server.asked.clear()
    with pytest.raises(ImagesUnavailable, match="redirected more than 3 times"):
        fetch_images([server.url("/a")], tmp_path, server.rules(), here)
    assert len(server.asked) == 4


def test_no_proxy_of_the_environment_learns_the_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.answers["/1.jpg"] = body(b"image")
    (source,) = fetch_images([server.url("/1.jpg")], tmp_path, server.rules(), here)
    assert b"".join(source.open()) == b"image"


def test_what_a_server_packed_is_kept_as_it_came(server: Server, tmp_path: Path) -> None:
    """A few bytes that would unpack into gigabytes stay the few bytes."""
    packed = gzip.compress(b"x" * 1_000_000)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed)

    server.answers["/1.jpg"] = answer
    (source,) = fetch_images([server.url("/1.jpg")], tmp_path, server.rules(image_bytes=100_000), here)
    assert b"".join(source.open()) == packed


def test_a_resolver_that_answers_otherwise_the_second_time_is_not_asked_twice(
    server: Server, tmp_path: Path
) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"]]

    def rebinding(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    server.answers["/1.jpg"] = body(b"secret")
    # The public address has no such port, or there is no way to it: what matters is who is not asked.
    with pytest.raises(ImagesUnavailable, match="could not be fetched"):
        fetch_images([server.url("/1.jpg", "rebind.example")], tmp_path, server.rules(wait=0.3), rebinding)
    assert answers == [["127.0.0.1"]]
    assert server.asked == []


def test_what_was_judged_is_what_is_connected_to(server: Server, tmp_path: Path) -> None:
    """The name resolves to this server for us alone: nothing in the way asks the system for it again."""
    server.answers["/1.jpg"] = body(b"image")
    calls = 0

    def once(host: str, port: int) -> Sequence[str]:
        nonlocal calls
        calls += 1
        assert calls == 1
        return ["127.0.0.1"]

    (source,) = fetch_images([server.url("/1.jpg")], tmp_path, server.rules(), once)
    assert b"".join(source.open()) == b"image"
    assert server.asked == [("/1.jpg", f"images.example:{server.port}")]


def test_too_many_too_large_and_too_much_together_are_refused(server: Server, tmp_path: Path) -> None:
    server.answers["/1.jpg"] = body(b"x" * 200_000)
    server.answers["/lies.jpg"] = body(b"x" * 200_000, length=10)
    with pytest.raises(TooManyImages):
        fetch_images([server.url("/1.jpg")] * 3, tmp_path, server.rules(images=2), here)
    with pytest.raises(ImagesUnavailable, match="more than 100,000 bytes"):
        fetch_images([server.url("/1.jpg")], tmp_path, server.rules(image_bytes=100_000), here)
    with pytest.raises(ImagesUnavailable, match="together"):
        fetch_images([server.url("/1.jpg")] * 3, tmp_path, server.rules(total_bytes=500_000), here)
    (source,) = fetch_images([server.url("/lies.jpg")], tmp_path, server.rules(), here)
    assert len(b"".join(source.open())) == 10


def test_a_server_that_never_ends_is_left(server: Server, tmp_path: Path) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    def drip_headers(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            handler.wfile.write(f"X-{number}: 1\r\n".encode())
            time.sleep(0.05)

    server.answers = {"/body.jpg": drip, "/headers.jpg": drip_headers, "/silent.jpg": lambda _: time.sleep(3)}
    for path in server.answers:
        began = time.monotonic()
        with pytest.raises(ImagesUnavailable):
            fetch_images([server.url(path)], tmp_path, server.rules(seconds=0.4, wait=0.4), here)
        assert time.monotonic() - began < 2.5, path


def test_a_cut_body_and_an_error_are_told_by_number_and_without_the_address(
    server: Server, tmp_path: Path
) -> None:
    server.answers["/cut.jpg"] = body(b"short", length=100)
    urls = [server.url("/cut.jpg?token=secret"), server.url("/missing.jpg?token=secret")]
    with pytest.raises(ImagesUnavailable) as refusal:
        fetch_images(urls, tmp_path, server.rules(), here)
    assert "image 1 of 2" in str(refusal.value)
    assert "image 2 of 2: its server answered 404" in str(refusal.value)
    assert "secret" not in str(refusal.value)
