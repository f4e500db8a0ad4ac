"""Tokens, keys and signed addresses: never in an error, a log line, a repr or a stored parameter."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.providers.protocol import ProviderError, TrainingRequest, UnknownOutcome
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.providers.secrets import REDACTED, redacted, scrubbed
from lora_pipeline.providers.transport import ANSWER_CAP, described, read_answer
from lora_pipeline.settings import FLUX_TRAINER
from lora_pipeline_tests.providers.conftest import DESTINATION, TOKEN
from lora_pipeline_tests.providers.scripted import Received, Reply, ScriptedServer, json_reply

SIGNATURE = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
SIGNED = f"https://store.example/submissions/3f2a/9c.zip?X-Amz-Signature={SIGNATURE}"
HF_TOKEN = "hf_AbCdEfGhIjKlMnOpQrSt"
WANDB_KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0ffeeddcc"
HOOK = "https://hooks.example/replicate/swordfish-swordfish"
FORBIDDEN = (TOKEN, SIGNATURE, HF_TOKEN, WANDB_KEY, "swordfish")

REQUEST = TrainingRequest(
    trainer=FLUX_TRAINER,
    destination=DESTINATION,
    input={"input_images": SIGNED, "hf_token": HF_TOKEN, "wandb_api_key": WANDB_KEY},
    webhook=HOOK,
)


def echo(status: int) -> Callable[[Received], Reply]:
    """A provider that quotes the whole request, and the token, in its refusal."""

    def answer(request: Received) -> Reply:
        said = f"{request.headers.get('authorization')} {request.body.decode()} {SIGNED}"
        fields = [{"type": "format", "field": "input", "description": said}]
        body = {"title": said, "detail": said, "invalid_fields": fields}
        return json_reply(body, status, **{"Retry-After": said})

    return answer


@pytest.mark.parametrize("status", [201, 302, 400, 401, 402, 404, 408, 409, 422, 429, 500])
def test_a_provider_that_echoes_the_request_betrays_nothing(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        ScriptedServer(echo(status)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(ProviderError) as caught,
    ):
        provider.create_training(REQUEST)

    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(REQUEST)
    assert [secret for secret in FORBIDDEN if secret in told] == []
    assert [secret for secret in FORBIDDEN if secret in ours(caplog)] == []


@pytest.mark.parametrize("status", [200, 302, 401, 402, 403, 404, 409, 422, 500])
def test_a_signed_download_address_is_told_to_nobody(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reply = Reply(
        status, b"half", promise=100, headers={"Location": f"ftp://x.example/{SIGNATURE}?sig={SIGNATURE}"}
    )
    with (
        ScriptedServer(reply) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(ProviderError) as caught,
    ):
        list(provider.download(f"{server.url}/{SIGNATURE}/lora.tar?X-Amz-Signature={SIGNATURE}"))

    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert SIGNATURE not in told


def test_a_lost_answer_betrays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        ScriptedServer(Reply(201, b'{"id"', promise=50)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
        pytest.raises(UnknownOutcome) as caught,
    ):
        provider.create_training(REQUEST)

    told = "".join(traceback.format_exception(caught.value)) + ours(caplog)
    assert [secret for secret in FORBIDDEN if secret in told] == []


def test_an_error_that_the_provider_reports_loses_its_signature() -> None:
    failed = {"id": "abc", "status": "failed", "error": f"could not fetch {SIGNED}: 403"}
    with (
        ScriptedServer(json_reply(failed)) as server,
        ReplicateProvider(server.url, TOKEN, timeout=2) as provider,
    ):
        job = provider.get_training("abc")

    assert job.error == f"could not fetch https://store.example/submissions/3f2a/9c.zip?{REDACTED} 403"


@pytest.mark.parametrize("token", [f"{TOKEN}\x00secret", "", "  ", f"{TOKEN} {TOKEN}", "r8_ä"])
def test_a_token_that_cannot_be_one_is_refused_without_being_quoted(token: str) -> None:
    with pytest.raises(ValueError, match="REPLICATE_API_TOKEN") as caught:
        ReplicateProvider("https://api.replicate.com", token, timeout=2)
    assert TOKEN not in str(caught.value)


def test_a_token_read_from_a_file_with_its_line_end_works() -> None:
    with (
        ScriptedServer(json_reply({"username": "acme"})) as server,
        ReplicateProvider(server.url, f"{TOKEN}\n", timeout=2) as provider,
    ):
        assert provider.owner() == "acme"
    assert server.received[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "url", ["api.replicate.com", "ftp://x", "https://user:swordfish@x", "https://x?a=swordfish", ""]
)
def test_a_base_address_that_cannot_be_one_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="REPLICATE_BASE_URL") as caught:
        ReplicateProvider(url, TOKEN, timeout=2)
    assert "swordfish" not in str(caught.value)


def test_stored_parameters_lose_their_secrets_and_nothing_else() -> None:
    assert redacted(
        {
            "hf_token": HF_TOKEN,
            "wandb_api_key": WANDB_KEY,
            "password": None,
            "class_tokens": "man",
            "input_images": SIGNED,
            "steps": 1000,
            "nested": {"api_key": 5, "list": [SIGNED, 1]},
        }
    ) == {
        "hf_token": REDACTED,
        "wandb_api_key": REDACTED,
        "password": None,
        "class_tokens": "man",
        "input_images": f"https://store.example/submissions/3f2a/9c.zip?{REDACTED}",
        "steps": 1000,
        "nested": {
            "api_key": REDACTED,
            "list": [f"https://store.example/submissions/3f2a/9c.zip?{REDACTED}", 1],
        },
    }


@given(
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=16, max_size=40),
)
def test_no_text_around_a_secret_saves_it(before: str, after: str, secret: str) -> None:
    for carrier in (
        f"https://host.example/path?sig={secret}",
        f"https://user:{secret}@host.example/path",
        f"r8_{secret}",
        f"Bearer {secret}",
    ):
        text = scrubbed(f"{before} {carrier} {after}")
        assert secret not in text or secret in before or secret in after
    assert secret not in scrubbed(f"{before}{secret}{after}", [secret])


def ours(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged, but for the DEBUG lines in which httpcore shows whole answers' headers."""
    return "\n".join(
        record.getMessage()
        for record in caplog.records
        if not (record.name.startswith("httpcore") and record.levelno == logging.DEBUG)
    )


def test_an_error_of_the_connection_is_described_without_the_address_that_it_quotes() -> None:
    error = httpx.UnsupportedProtocol(f"Request URL has an unsupported protocol: {SIGNED}")
    assert "unsupported protocol" in described(error)
    assert SIGNATURE not in described(error)


def test_an_answer_without_end_is_left() -> None:
    read = 0

    def pieces() -> Iterator[bytes]:
        nonlocal read
        for _ in range(ANSWER_CAP // 2**20 + 10):
            read += 1
            yield bytes(2**20)

    assert read_answer(httpx.Response(200, content=pieces())).body is None
    assert read == ANSWER_CAP // 2**20 + 1
