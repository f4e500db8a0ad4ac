"""Bodies that are too large, too slow, cut short or no form, and image addresses that lead elsewhere."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from lora_pipeline.api import bodies, server
from lora_pipeline.api.webhooks import DELIVERIES_AT_ONCE
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Image
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import problem


@pytest.fixture
def database_address(sqlite_template: Path, tmp_path: Path) -> str:
    """Nothing here depends on the database."""
    shutil.copyfile(sqlite_template, tmp_path / "lora.sqlite3")
    return f"sqlite:///{tmp_path / 'lora.sqlite3'}"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second instead of fifteen between two pieces of a body, and for a whole head."""
    monkeypatch.setattr(bodies, "PAUSE_S", 0.5)
    monkeypatch.setattr(server, "HEAD_S", 0.5)


def images_kept(connections: Connections) -> int:
    with connections.database.read() as session:
        return session.query(Image).count()


def raw(client: httpx.Client, content: bytes, then: Callable[[socket.socket], None]) -> bytes:
    """Send bytes as they are, do something with the connection, and read what is answered."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), 10) as connection:
        connection.sendall(content)
        then(connection)
        connection.settimeout(10)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def head(client: httpx.Client, path: str, length: int, kind: str = "application/json") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{client.base_url.port}",
        f"Authorization: {client.headers['authorization']}",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_an_announced_and_an_unannounced_large_body_are_refused_without_reading_on(
    connections: Connections, anna: httpx.Client
) -> None:
    connections.settings.upload_cap_bytes = 1_000_000
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(500):
            sent += 65536
            yield b"x" * 65536

    json_headers = {"Content-Type": "application/json"}
    large = anna.post("/api/training/start", content=b" " * 1_100_000, headers=json_headers)
    assert "larger than the 1,000,000 bytes" in problem(large, 413)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = anna.post("/api/training/upload", content=endless(), headers=form)
    assert answer.status_code in (400, 413)
    announced = raw(anna, head(anna, "/api/training/upload", 10**12), lambda _: None)
    assert b" 413 " in announced.split(b"\r\n")[0]
    assert images_kept(connections) == 0


def test_a_body_that_stops_coming_is_not_waited_for(connections: Connections, anna: httpx.Client) -> None:
    began = time.monotonic()
    answers: list[bytes] = []

    def slow() -> None:
        answers.append(raw(anna, head(anna, "/api/training/start", 500) + b'{"modelName"', lambda _: None))

    # Other requests are answered while slow ones hang.
    threads = [threading.Thread(target=slow) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert anna.get("/api/models").status_code == 200
    assert time.monotonic() - began < 5
    for thread in threads:
        thread.join()
    assert {answer.split(b"\r\n")[0].split(b" ")[1] for answer in answers} == {b"408"}


def test_only_so_many_deliveries_are_held_in_memory_at_once(
    anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PAUSE_S", 60.0)
    half = head(anna, "/webhooks/replicate", 500) + b'{"id"'

    def answered(status: int) -> httpx.Response:
        deadline = time.monotonic() + 15
        while (answer := anna.post("/webhooks/replicate", content=b"{}")).status_code != status:
            assert time.monotonic() < deadline, answer.text
        return answer

    with ExitStack() as held:
        for _ in range(DELIVERIES_AT_ONCE):
            address = (anna.base_url.host, anna.base_url.port or 80)
            held.enter_context(socket.create_connection(address, 10)).sendall(half)
        refused = answered(503)
        assert problem(refused, 503)
        assert refused.headers["retry-after"]
        assert anna.get("/api/models").status_code == 200
    answered(401)


def test_requests_that_wait_for_the_database_hold_up_no_other(
    connections: Connections, anna: httpx.Client
) -> None:
    """While somebody writes, every other writer of SQLite waits; the event loop and readers do not."""
    assert anna.get("/healthz").status_code == 200
    files = [("images", ("a.jpg", b"no image", "image/jpeg"))]
    statuses: list[int] = []

    def send() -> None:
        statuses.append(anna.post("/api/training/upload", files=files).status_code)

    threads = [threading.Thread(target=send) for _ in range(3)]
    with connections.database.begin() as session:
        session.connection()  # the write lock is held from here on
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # they are at the database by then, or else on their way there
        began = time.monotonic()
        for _ in range(5):
            assert anna.get("/healthz").status_code == 200
            assert anna.get("/api/models").status_code == 200
        assert time.monotonic() - began < 3
        assert statuses == []
    for thread in threads:
        thread.join()
    assert statuses == [200, 200, 200]


ON_THE_EVENT_LOOP = {
    "__call__", "receive", "sending",  # middleware: passes messages on
    "http", "invalid", "gone", "defect",  # errors: make an answer of what they are given
    "services_of", "form_of",  # what is there already; a form whose files are written in threads
    "replicate_webhook", "runpod_webhook", "_body",  # bodies that are read raw; what follows is in a thread
}  # fmt: skip


def test_nothing_but_passing_on_happens_on_the_event_loop() -> None:
    """A handler that is no coroutine runs in a thread, where it may wait for a database or a provider."""
    found = {
        node.name
        for path in Path(server.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef)
    }
    assert found == ON_THE_EVENT_LOOP


def test_a_head_that_does_not_come_is_not_waited_for(anna: httpx.Client) -> None:
    began = time.monotonic()
    answers: list[bytes] = []
    started = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
    after_another = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + started

    def slow(content: bytes) -> None:
        answers.append(raw(anna, content, lambda _: None))

    threads = [threading.Thread(target=slow, args=[content]) for content in (b"", started, after_another)]
    for thread in threads:
        thread.start()
    assert anna.get("/api/models").status_code == 200
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 5
    nothing, first, second = sorted(answers, key=len)
    assert nothing == b"", "who only connected is asked nothing"
    assert first.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in first
    assert second.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in second


def test_a_head_without_an_end_and_what_is_no_request_are_refused(anna: httpx.Client) -> None:
    def on_and_on(connection: socket.socket) -> None:
        with suppress(OSError):  # the server hangs up
            for _ in range(64):
                connection.sendall(b"x" * 65536)

    with suppress(ConnectionError):  # what was sent after the answer may tear it up
        refused = raw(anna, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ", on_and_on)
        assert refused.startswith(b"HTTP/1.1 431 ")
    assert b" 400 " in raw(anna, b"\x16\x03\x01 this is no HTTP\r\n\r\n", lambda _: None).split(b"\r\n")[0]
    long = {"X-Long": "x" * 40_000}
    assert anna.get("/api/models", headers=long).status_code == 200, "what a proxy would let pass"


def test_a_body_that_is_cut_short_leaves_nothing(connections: Connections, anna: httpx.Client) -> None:
    def leave(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)

    part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n\xff\xd8\xff'
    form = head(anna, "/api/training/upload", 100_000, "multipart/form-data; boundary=x")
    raw(anna, form + part, leave)
    raw(anna, head(anna, "/api/training/start", 100_000) + b'{"modelName": "Anna", ', leave)
    assert anna.get("/healthz").status_code == 200
    assert images_kept(connections) == 0


NO_FORMS = [
    (b"", "multipart/form-data; boundary=x"),
    (b"--x--\r\n", "multipart/form-data; boundary=x"),
    (b"--x\r\n\r\n\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    (b"garbage", "multipart/form-data; boundary=x"),
    (b"garbage", "multipart/form-data"),
    (b"{}", "application/json"),
    (b"a=b", "application/x-www-form-urlencoded"),
]


def test_what_is_no_form_with_files_is_refused(anna: httpx.Client) -> None:
    for content, kind in NO_FORMS:
        answer = anna.post("/api/training/upload", content=content, headers={"Content-Type": kind})
        assert answer.status_code in (400, 415), content
        assert answer.headers["content-type"] == "application/problem+json"


def test_more_files_than_a_training_takes_are_refused(anna: httpx.Client) -> None:
    files = [("images", (f"{number}.jpg", b"x", "image/jpeg")) for number in range(120)]
    assert anna.post("/api/training/upload", files=files).status_code == 400


def test_a_body_that_is_deep_odd_or_no_json_is_refused(anna: httpx.Client) -> None:
    for content in (
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
        b"null",
        b'{"modelName": "\\ud800", "imageUrls": []}',
        json.dumps({"modelName": "A", "imageUrls": ["x"] * 2000}).encode(),
        json.dumps({"modelName": "A", "imageUrls": [], "surprise": 1}).encode(),
    ):
        answer = anna.post(
            "/api/training/start", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), content[:50]
        assert answer.headers["content-type"] == "application/problem+json"


def test_control_characters_are_refused_alike_on_both_databases(anna: httpx.Client) -> None:
    for field, text in (("modelName", "A\0"), ("modelName", "A\nB"), ("gender", "\x1b[1m"), ("userId", "\0")):
        body = {"modelName": "A", "imageUrls": []} | {field: text}
        detail = problem(anna.post("/api/training/start", json=body), 422)
        assert detail.startswith(f"body.{field}: "), detail
    caption = {"name": "a.jpg", "caption": "in a suit\0"}
    assert problem(anna.patch("/api/models/x/images", json=caption), 422).startswith("body.caption: ")
    reason = problem(anna.post("/api/models/x/pin", json={"reason": "\0"}), 422)
    assert reason.startswith("body.reason: ")


def test_image_addresses_into_this_network_are_refused_before_anything_is_made(
    connections: Connections, anna: httpx.Client
) -> None:
    port = anna.base_url.port
    for url in (
        f"http://127.0.0.1:{port}/metrics",
        f"http://localhost:{port}/metrics",
        f"http://[::ffff:127.0.0.1]:{port}/metrics",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/",
        "file:///etc/passwd",
        f"http://user@127.0.0.1:{port}/api/uploads/{'a' * 64}/x.jpg",
        f"http://127.0.0.1:{port}/api/uploads/../../metrics",
    ):
        body = {"modelName": "Anna", "imageUrls": [url] * 5}
        detail = problem(anna.post("/api/training/start", json=body), 422)
        assert detail.startswith("Failed to create training ZIP: image 1 of 5")
    assert anna.get("/api/models").json() == {"models": []}
    assert images_kept(connections) == 0


def test_an_image_address_that_leads_into_this_network_is_not_followed(
    connections: Connections, anna: httpx.Client
) -> None:
    """The setting lets one private host be asked; whoever it redirects to is judged anew."""
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/?to="))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    port = elsewhere.server_port
    connections.settings.image_hosts = f"127.0.0.1:{port}"
    for to in (
        f"http://localhost:{port}/secret",
        f"http://[::ffff:127.0.0.1]:{port}/secret",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ):
        urls = [f"http://127.0.0.1:{port}/?to={to}"] * 5
        detail = problem(anna.post("/api/training/start", json={"modelName": "A", "imageUrls": urls}), 422)
        assert detail.startswith("Failed to create training ZIP: image 1 of 5"), to
    elsewhere.shutdown()
    elsewhere.server_close()
    assert len(asked) == 30
    assert not [path for path in asked if not path.startswith("/?to=")]
    assert images_kept(connections) == 0


def test_without_a_token_a_start_says_what_to_set(connections: Connections) -> None:
    connections.settings.replicate_api_token = None
    with serving(connections) as anyone, with_key(anyone, key_for(connections, "42")) as client:
        body = {"modelName": "Anna", "imageUrls": ["https://images.example/1.jpg"] * 5}
        detail = problem(client.post("/api/training/start", json=body), 503)
        assert detail.startswith("REPLICATE_API_TOKEN environment variable is not set")
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
