"""Uploaded files, and what the simulated trainer makes of the ZIP it is given."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.simulator.trainers import FLUX_TRAINER
from lora_pipeline_tests.simulator.conftest import CREATE, JPEG, VERSION, order, zip_bytes

GOOD = {f"{n:03d}.jpg": JPEG for n in range(5)} | {f"{n:03d}.txt": b"user1 at the sea" for n in range(5)}


def upload(client: Client, data: bytes) -> Any:
    return client.files.create(io.BytesIO(data), filename="images.zip", metadata={"token": "t1"})


def ended(simulator: RunningSimulator, api: httpx.Client, input_images: str) -> dict[str, object]:
    """The end of a training of this ZIP, and what the ledger knows of it."""
    simulator.settings(fetch_archives=True)
    body = order()
    body["input"] = {"input_images": input_images}
    made = api.post(CREATE, json=body).json()
    simulator.advance(60)
    simulator.advance(3000)
    seen: dict[str, object] = api.get(f"/v1/trainings/{made['id']}").json()
    return seen | {"images": simulator.paid()["trainings"][-1]["images"]}


def test_a_file_is_kept_for_a_day(simulator: RunningSimulator, client: Client) -> None:
    file = upload(client, b"12345")
    assert (file.name, file.size, file.metadata) == ("images.zip", 5, {"token": "t1"})
    assert client.files.get(file.id).checksums == file.checksums
    assert [found.id for found in client.files.list()] == [file.id]
    simulator.advance(86_401)
    assert client.files.list() == []
    with pytest.raises(ReplicateError, match="File not found"):
        client.files.get(file.id)


def test_a_deleted_file_is_gone(client: Client, api: httpx.Client) -> None:
    file = upload(client, b"12345")
    assert client.files.delete(file.id)
    assert api.get(f"/v1/files/{file.id}").status_code == 404
    assert api.delete(f"/v1/files/{file.id}").status_code == 404


def test_a_file_above_the_cap_is_a_413(simulator: RunningSimulator, api: httpx.Client) -> None:
    simulator.settings(file_cap_bytes=1_000_000)
    for size in (1_000_001, 3_000_000):
        answer = api.post("/v1/files", files={"content": ("a.zip", b"x" * size)})
        assert answer.status_code == 413
        assert answer.json()["detail"] == "Files must be less than 1MB in size"
    assert api.post("/v1/files", files={"content": ("a.zip", b"x" * 1_000_000)}).status_code == 201


def test_the_zip_is_read_from_the_provider_s_own_file(
    simulator: RunningSimulator, client: Client, api: httpx.Client
) -> None:
    file = upload(client, zip_bytes(GOOD))
    seen = ended(simulator, api, file.urls["get"])
    assert (seen["status"], seen["images"]) == ("succeeded", 5)


def test_the_client_uploads_a_zip_given_as_an_open_file(simulator: RunningSimulator, client: Client) -> None:
    simulator.settings(fetch_archives=True)
    source = io.BytesIO(zip_bytes(GOOD))
    source.name = "images.zip"
    training = client.trainings.create(
        model=FLUX_TRAINER,
        version=VERSION,
        input={"input_images": source},
        destination="acme/user-1-selfie-lora",
        file_encoding_strategy="url",
    )
    assert training.input is not None
    assert training.input["input_images"].startswith(simulator.url + "/v1/files/")
    simulator.advance(60)
    assert simulator.paid()["trainings"][0]["images"] == 5


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"notes.txt": b"nothing"}, "Not enough training images: found 0"),
        ({"a.gif": b"GIF89a", "b.bmp": b"BM"}, "Not enough training images: found 0"),
        (GOOD | {"photos/._a.jpg": b"\x00\x05\x16\x07AppleDouble"}, "cannot identify image file"),
        (GOOD | {"text.jpg": b"this is text"}, "cannot identify image file"),
    ],
)
def test_a_zip_that_stops_the_trainer_fails_the_training(
    simulator: RunningSimulator,
    client: Client,
    api: httpx.Client,
    members: dict[str, bytes],
    words: str,
) -> None:
    seen = ended(simulator, api, upload(client, zip_bytes(members)).urls["get"])
    assert seen["status"] == "failed"
    assert words in str(seen["error"])


def test_entries_that_the_trainer_skips_do_no_harm(
    simulator: RunningSimulator, client: Client, api: httpx.Client
) -> None:
    members = GOOD | {"__MACOSX/._000.jpg": b"fork", "._001.jpg": b"fork", "sub/UPPER.JPG": JPEG}
    seen = ended(simulator, api, upload(client, zip_bytes(members)).urls["get"])
    assert (seen["status"], seen["images"]) == ("succeeded", 6)


def test_what_is_no_zip_and_what_is_gone_fail_the_training(
    simulator: RunningSimulator, client: Client, api: httpx.Client
) -> None:
    assert "unzip" in str(ended(simulator, api, upload(client, b"<html>").urls["get"])["error"])
    seen = ended(simulator, api, f"{simulator.url}/v1/files/gone")
    assert seen["status"] == "failed"
    assert "HTTP Error 401" in str(seen["error"])
    nobody = ended(simulator, api, "http://127.0.0.1:9/images.zip?X-Amz-Signature=secret")
    assert nobody["error"] == "Failed to download input_images: ConnectError"


@pytest.fixture
def store() -> Iterator[str]:
    """A web server that hands out one good ZIP under any path that starts with /good."""
    data = zip_bytes(GOOD)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/good")
            self.send_response(200 if found else 403)
            self.send_header("Content-Length", str(len(data) if found else 0))
            self.end_headers()
            self.wfile.write(data if found else b"")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_zip_is_fetched_by_a_presigned_address(
    simulator: RunningSimulator, api: httpx.Client, store: str
) -> None:
    assert ended(simulator, api, f"{store}/good/a.zip?X-Amz-Signature=s")["status"] == "succeeded"
    refused = ended(simulator, api, f"{store}/expired/a.zip?X-Amz-Signature=s")
    assert refused["error"] == "Failed to download input_images: HTTP Error 403: Forbidden"


def test_a_zip_over_the_cap_is_not_downloaded_to_its_end(
    simulator: RunningSimulator, api: httpx.Client, store: str
) -> None:
    simulator.settings(archive_cap_bytes=100)
    assert "more than 100 bytes" in str(ended(simulator, api, f"{store}/good/a.zip")["error"])


def test_the_captions_of_the_zip_come_back_beside_the_weights(
    simulator: RunningSimulator, client: Client, api: httpx.Client
) -> None:
    seen = ended(simulator, api, upload(client, zip_bytes(GOOD)).urls["get"])
    output = seen["output"]
    assert isinstance(output, dict)
    body = httpx.get(output["weights"]).content
    assert b"output/flux_train_replicate/captions/000.txt" in body
    assert b"user1 at the sea" in body
