"""Downloading outputs: streamed, followed a little, and without the token anywhere but at the provider's own origin."""

from __future__ import annotations

import io
import tarfile

import pytest

from lora_pipeline.providers.protocol import NotFound, ProviderUnavailable, Refused
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.providers.conftest import TOKEN, wanted
from lora_pipeline_tests.providers.scripted import Received, Reply, ScriptedServer


def test_the_weights_of_a_training_are_streamed(
    simulator: RunningSimulator, provider: ReplicateProvider, destination: str
) -> None:
    job_id = provider.create_training(wanted(destination)).id
    simulator.end(job_id)
    weights = provider.get_training(job_id).output_weights
    assert weights is not None

    content = b"".join(provider.download(weights))

    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert "output/flux_train_replicate/lora.safetensors" in archive.getnames()


def test_nothing_is_asked_for_before_the_first_chunk_is_taken() -> None:
    with (
        ScriptedServer(Reply(200, b"x" * 10)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        chunks = provider.download(f"{server.url}/file")
        assert server.received == []
        assert b"".join(chunks) == b"x" * 10


def test_the_token_goes_to_the_own_origin_only() -> None:
    with ScriptedServer(Reply(200, b"weights")) as store:

        def to_the_store(_: Received) -> Reply:
            return Reply(302, headers={"Location": f"{store.url}/bucket/lora.tar?X-Amz-Signature=1"})

        with (
            ScriptedServer(to_the_store) as api,
            ReplicateProvider(api.url, TOKEN, timeout=2) as provider,
        ):
            assert b"".join(provider.download(f"{api.url}/v1/files/f1/download")) == b"weights"
            assert b"".join(provider.download(f"{store.url}/bucket/lora.tar")) == b"weights"

        assert api.received[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert [request.headers.get("authorization") for request in store.received] == [None, None]


def test_redirects_are_followed_three_times() -> None:
    def again(request: Received) -> Reply:
        number = int(request.path.removeprefix("/"))
        return Reply(307, headers={"Location": f"/{number - 1}"}) if number else Reply(200, b"there")

    with (
        ScriptedServer(again) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        assert b"".join(provider.download(f"{server.url}/3")) == b"there"
        with pytest.raises(ProviderUnavailable, match="redirected more than 3"):
            list(provider.download(f"{server.url}/4"))


@pytest.mark.parametrize(
    "address",
    [
        "http://replicate.delivery/xezq/abc/trained_model.tar",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://replicate.delivery/x",
        "/etc/passwd",
        "https://",
        "https://[::1",
        "",
    ],
)
def test_only_https_is_followed_into_the_world(address: str) -> None:
    with (
        ScriptedServer(lambda _: Reply(302, headers={"Location": address or "http://10.0.0.1/"})) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        with pytest.raises(Refused, match="expected https"):
            list(provider.download(address))
        assert server.received == []
        if address != "/etc/passwd":
            with pytest.raises(Refused, match="expected https"):
                list(provider.download(f"{server.url}/file"))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_gone_or_whose_address_has_expired_is_not_found(status: int) -> None:
    with (
        ScriptedServer(
            Reply(status, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
        ) as server,
        ReplicateProvider("https://api.invalid", TOKEN, timeout=2) as provider,
        pytest.raises(NotFound, match=str(status)),
    ):
        list(provider.download(f"{server.url}/lora.tar"))


@pytest.mark.parametrize(
    "reply", [Reply(500), Reply(429), Reply(206, b"part"), Reply(200, b"half", promise=8)]
)
def test_a_download_that_fails_or_breaks_off_may_be_tried_again(reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(ProviderUnavailable),
    ):
        list(provider.download(f"{server.url}/lora.tar"))


def test_a_download_from_nowhere_may_be_tried_again() -> None:
    with (
        ReplicateProvider("https://api.invalid", TOKEN, timeout=1) as provider,
        pytest.raises(ProviderUnavailable, match=r"127\.0\.0\.1"),
    ):
        list(provider.download("http://127.0.0.1:9/lora.tar"))


def test_a_download_that_is_dropped_closes_its_connection() -> None:
    with (
        ScriptedServer(Reply(200, b"x" * (8 << 20))) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        for _ in range(40):  # More than the pool has connections.
            chunks = provider.download(f"{server.url}/lora.tar")
            assert next(chunks)
            chunks.close()  # type: ignore[attr-defined]
