"""What only S3 has: signing, buckets, the network and its failures."""

import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from lora_pipeline.objects import ObjectStore, ObjectStoreError, StoreRefused, StoreUnavailable, open_store
from lora_pipeline_tests.fixtures.s3 import KEYS_PER_PAGE, S3Server

ENV = {"AWS_ACCESS_KEY_ID": "AKIASHOWNNOWHERE", "AWS_SECRET_ACCESS_KEY": "secret-shown-nowhere"}
LEAKS = ("AKIASHOWNNOWHERE", "secret-shown-nowhere", "StringToSign", "password")


def every_call(store: ObjectStore) -> list[ObjectStoreError]:
    """The errors of one call of each kind."""
    errors = []
    for call in (
        lambda: store.put_bytes("k", b"1", create_only=True),
        lambda: store.put_stream("k", (bytes(1_000_000) for _ in range(20))),
        lambda: store.get_bytes("k"),
        lambda: store.get_range("k", 0, 1),
        lambda: store.stream("k"),
        lambda: store.head("k"),
        lambda: list(store.list()),
        lambda: store.delete("k"),
        lambda: store.delete_many(["k", "l"]),
    ):
        with pytest.raises(ObjectStoreError) as raised:
            call()
        errors.append(raised.value)
        text = f"{raised.value} {raised.value!r} {raised.value.__cause__}"
        assert not [leak for leak in LEAKS if leak in text], text
        assert raised.value.__suppress_context__
    return errors


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """An endpoint that gives every request the same answer."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_presigned_url_reads_the_object_without_credentials(s3_store: ObjectStore) -> None:
    s3_store.put_bytes("a b/ü+%?#.jpg", b"face", content_type="image/jpeg")
    assert s3_store.can_presign
    url = s3_store.presign_get("a b/ü+%?#.jpg", timedelta(minutes=5))
    assert url is not None
    assert "X-Amz-Expires=300" in url
    with urlopen(url) as answer:
        assert answer.read() == b"face"
        assert answer.headers["content-type"] == "image/jpeg"


def test_a_presigned_url_lives_at_most_seven_days(s3_store: ObjectStore) -> None:
    assert s3_store.presign_get("k", timedelta(days=7))
    for expires in (timedelta(days=7, seconds=1), timedelta(0), timedelta(days=-1)):
        with pytest.raises(ValueError, match="7 days"):
            s3_store.presign_get("k", expires)


def test_a_store_sees_only_what_lies_below_its_prefix(s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    whole, part = s3_server.open(bucket), s3_server.open(bucket, "team/a/")
    whole.put_bytes("other/x", b"1")
    whole.put_bytes("team/ab", b"1")
    part.put_bytes("x", b"2")
    assert [info.key for info in part.list()] == ["x"]
    assert whole.get_bytes("team/a/x") == b"2"
    assert part.address("x") == f"s3://{bucket}/team/a/x"
    assert part.key_of(whole.address("team/a/x")) == "x"
    assert part.key_of(whole.address("team/ab")) is None


def test_a_folder_made_in_a_console_is_no_object(s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    for key in ("photos/", "photos/sub/", "photos/empty.jpg", "photos/sub/1.jpg"):
        with urlopen(Request(f"{s3_server.endpoint_url}/{bucket}/{key}", data=b"", method="PUT")):
            pass
    store = s3_server.open(bucket)
    assert [info.key for info in store.list("photos")] == ["photos/empty.jpg", "photos/sub/1.jpg"]
    assert [info.key for info in store.list()] == ["photos/empty.jpg", "photos/sub/1.jpg"]
    assert [info.key for info in s3_server.open(bucket, "photos").list()] == ["empty.jpg", "sub/1.jpg"]


def test_a_key_that_cannot_be_addressed_is_named(s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    with urlopen(Request(f"{s3_server.endpoint_url}/{bucket}/a//b", data=b"1", method="PUT")):
        pass
    with pytest.raises(StoreRefused, match="a//b"):
        list(s3_server.open(bucket).list())


def test_more_objects_than_a_page_are_listed_page_by_page(s3_server: S3Server) -> None:
    bucket = s3_server.create_bucket()
    store = s3_server.open(bucket)
    count = 2 * KEYS_PER_PAGE + 5
    for number in range(count):
        with urlopen(Request(f"{s3_server.endpoint_url}/{bucket}/n/{number:04}", data=b"1", method="PUT")):
            pass
    assert [info.key for info in store.list()] == [f"n/{number:04}" for number in range(count)]
    store.delete_many(info.key for info in store.list())
    assert list(store.list()) == []


def test_a_missing_bucket_is_not_taken_for_a_missing_object(s3_server: S3Server) -> None:
    store = s3_server.open("no-such-bucket")
    for call in (
        lambda: store.put_bytes("k", b"1"),
        lambda: store.put_stream("k", (bytes(1_000_000) for _ in range(20))),
        lambda: store.get_bytes("k"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreRefused, match="the bucket 'no-such-bucket' does not exist") as raised:
            call()
        assert "Create it, or correct the address" in str(raised.value)


def test_an_endpoint_that_is_down_is_told_within_seconds() -> None:
    store = open_store("s3://bucket", endpoint_url="http://user:password@127.0.0.1:1", env=ENV)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        store.put_bytes("photos/1.jpg", b"1")
    assert time.monotonic() - started < 8
    assert str(raised.value) == (
        "s3://bucket/photos/1.jpg: http://127.0.0.1:1 is unreachable or failing: it refuses connections. "
        "Check AWS_ENDPOINT_URL and the network, then try again"
    )


def test_a_host_that_does_not_exist_is_told() -> None:
    store = open_store("s3://bucket", endpoint_url="http://no-such-host.invalid:9000", env=ENV)
    with pytest.raises(StoreUnavailable, match="its name does not resolve"):
        store.head("k")


def test_a_refusal_shows_why_and_no_secret() -> None:
    body = (
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature does not match</Message>"
        b"<AWSAccessKeyId>AKIASHOWNNOWHERE</AWSAccessKeyId><StringToSign>AWS4</StringToSign></Error>"
    )
    with answering(403, body) as endpoint:
        errors = every_call(open_store("s3://bucket/prefix", endpoint_url=endpoint, env=ENV))
    assert {type(error) for error in errors} == {StoreRefused}
    assert all("refused access with 403" in error.cause for error in errors)
    assert all("AWS_ACCESS_KEY_ID" in error.remedy for error in errors)
    assert "(SignatureDoesNotMatch: The request signature does not match)" in errors[0].cause


def test_a_server_in_trouble_is_worth_another_try() -> None:
    with answering(
        503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
    ) as endpoint:
        store = open_store("s3://bucket", endpoint_url=endpoint, env=ENV)
        with pytest.raises(StoreUnavailable, match=r"answered 503 \(SlowDown: Reduce your request rate"):
            store.get_bytes("k")


def test_a_bucket_in_another_region_names_the_setting() -> None:
    with answering(301, b"") as endpoint, pytest.raises(StoreRefused, match="Set AWS_REGION"):
        open_store("s3://bucket", endpoint_url=endpoint, env=ENV).head("k")


def test_an_answer_that_breaks_off_is_no_shorter_object() -> None:
    class HalfAnAnswer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.send_header("Last-Modified", "Sun, 10 Nov 2024 10:00:00 GMT")
            self.send_header("ETag", '"x"')
            self.end_headers()
            self.wfile.write(b"a" * 500)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), HalfAnAnswer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = open_store("s3://bucket", endpoint_url=f"http://127.0.0.1:{server.server_port}", env=ENV)
    with pytest.raises(StoreUnavailable):
        store.get_bytes("k")
    with pytest.raises(StoreUnavailable):
        b"".join(store.stream("k"))
    server.shutdown()
    server.server_close()


def test_without_credentials_the_settings_are_named(
    monkeypatch: pytest.MonkeyPatch, s3_server: S3Server
) -> None:
    # The client itself asks the machine's metadata service, found by this variable; nothing listens there.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    store = open_store("s3://bucket", endpoint_url=s3_server.endpoint_url, env={})
    with pytest.raises(StoreRefused, match=r"no AWS credentials were found.*AWS_ACCESS_KEY_ID.*AWS_PROFILE"):
        store.get_bytes("k")


def test_an_unsigned_stranger_is_not_what_the_urls_are_for(s3_store: ObjectStore) -> None:
    with pytest.raises(urllib.error.HTTPError), urlopen(s3_store.presign_get("missing", timedelta(1)) or ""):
        pass


def test_a_named_profile_signs_in(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        "[dev]\naws_access_key_id=AKIADEV\naws_secret_access_key=secret\n[empty]\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    address = f"s3://{s3_server.create_bucket()}"
    store = open_store(address, endpoint_url=s3_server.endpoint_url, env={"AWS_PROFILE": "dev"})
    store.put_bytes("k", b"1")
    assert "AKIADEV" in (store.presign_get("k", timedelta(hours=1)) or "")
    for name in ("missing", "empty"):
        with pytest.raises(StoreRefused, match=f"AWS_PROFILE '{name}': it gives no credentials"):
            open_store(address, endpoint_url=s3_server.endpoint_url, env={"AWS_PROFILE": name})
