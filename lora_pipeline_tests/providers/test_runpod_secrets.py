"""RunPod's key, presigned addresses and the webhook's secret path: never in an error, a log line or a repr."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

import pytest

from lora_pipeline.providers.protocol import ProviderError, TrainingRequest, UnknownOutcome
from lora_pipeline_tests.fixtures.runpod import DESTINATION, RUNPOD_KEY, a_provider
from lora_pipeline_tests.providers.scripted import Received, Reply, ScriptedServer, json_reply
from lora_pipeline_tests.providers.test_runpod_creation import JOB, a_store
from lora_pipeline_tests.providers.test_secrets import ours

SIGNATURE = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
SIGNED = f"https://store.example/submissions/3f2a/9c.zip?X-Amz-Signature={SIGNATURE}"
HOOK = "https://lora.example/webhooks/runpod/swordfish-swordfish"
FORBIDDEN = (RUNPOD_KEY, SIGNATURE, "swordfish")
REQUEST = TrainingRequest(
    "runpod/ep", DESTINATION, {"input_images": SIGNED, "class_tokens": "a"}, HOOK, "token-1"
)


def echo(status: int) -> Callable[[Received], Reply]:
    """A provider that quotes the whole request, and the key, in its answer."""

    def answer(request: Received) -> Reply:
        said = f"{request.headers.get('authorization')} {request.body.decode()} {SIGNED}"
        return json_reply({"error": said, "message": said, "title": said}, status, **{"Retry-After": said})

    return answer


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 404, 408, 422, 429, 500])
def test_a_provider_that_echoes_the_request_betrays_nothing(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        ScriptedServer(echo(status)) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(ProviderError) as caught,
    ):
        provider.create_training(REQUEST)

    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(REQUEST)
    told += repr(provider) + ours(caplog)
    assert [secret for secret in FORBIDDEN if secret in told] == []


def test_a_lost_answer_betrays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        ScriptedServer(Reply(200, b'{"id"', promise=50)) as server,
        a_provider(server.url, a_store()) as provider,
        pytest.raises(UnknownOutcome) as caught,
    ):
        provider.create_training(REQUEST)
    told = "".join(traceback.format_exception(caught.value)) + ours(caplog)
    assert [secret for secret in FORBIDDEN if secret in told] == []


def test_what_a_job_echoes_stays_out_of_its_repr_and_its_error() -> None:
    failed = {
        "id": JOB,
        "status": "FAILED",
        "error": f"could not fetch {SIGNED} with Bearer {RUNPOD_KEY}",
        "input": {"job_id": "token-1", "dataset_url": SIGNED},
        "output": {"log": SIGNED},
    }
    with ScriptedServer(json_reply(failed)) as server, a_provider(server.url, a_store()) as provider:
        job = provider.get_training(JOB)
    assert (job.mark, job.input_reference) == ("token-1", SIGNED)
    assert [secret for secret in FORBIDDEN if secret in f"{job!r}{job.error}"] == []
