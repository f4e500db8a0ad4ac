"""Trainings at RunPod serverless, or at its simulator: each method is one conversation with every way it can end.

An endpoint runs a worker of ours (`docs/runpod_worker.md`), which reads the dataset from a presigned address and
leaves the weights in our bucket under the run's token. RunPod has no list of jobs, no idempotency key, and forgets
a finished job after half an hour: the object in the bucket is what proves a training. What the answers mean for a
training run is decided elsewhere.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from lora_pipeline.identity import IdentityError, parse_job_id
from lora_pipeline.objects.errors import ObjectNotFound, ObjectStoreError, StoreUnavailable
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.providers.answers import Answer, succeeded
from lora_pipeline.providers.protocol import (
    JobState,
    NotFound,
    ProviderUnavailable,
    ProviderVersion,
    Refused,
    TrainingJob,
    TrainingPage,
    TrainingRequest,
    UnknownOutcome,
    UploadedFile,
)
from lora_pipeline.providers.runpod_answers import (
    ENDPOINT_REMEDY,
    MalformedJob,
    creation_outcome,
    parse_job,
    refusal,
)
from lora_pipeline.providers.runpod_worker import (
    OBJECT_STORE_REMEDY,
    weights_key,
    worker_input,
    worker_input_schema,
)
from lora_pipeline.providers.secrets import secret_values
from lora_pipeline.providers.transport import (
    NOTHING_SENT,
    GuardedTransport,
    Reader,
    checked_base,
    checked_token,
    described,
    read_answer,
)

__all__ = ["RunPodProvider", "weights_key"]

log = logging.getLogger(__name__)

SIMULATED_HEADER = "lora-pipeline-simulator"
JOB_ID_METADATA = ("runpod_job_id", "runpod-job-id")
"""The object's user metadata in which the worker notes whose it is; some gateways to S3 drop names with '_'."""
TOKEN_METADATA = "token"  # noqa: S105
SHORTEST_EXECUTION, SHORTEST_TTL, LONGEST = timedelta(seconds=5), timedelta(seconds=10), timedelta(days=7)
"""What RunPod's documentation allows for the two times of a job's policy."""
_A_KEY = "rpa_ and letters and digits. Copy it again from https://www.runpod.io/console/user/settings"
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class RunPodProvider:
    """RunPod's jobs as trainings, safe for several threads. See `protocol.TrainingProvider` and
    `protocol.LeavesWeightsInBucket` for what each method promises."""

    name = "runpod"

    def __init__(
        self,
        base_url: str,
        endpoint: str,
        api_key: str,
        bucket: Callable[[], ObjectStore] | ObjectStore,
        *,
        timeout: float,
        execution_timeout: timedelta,
        ttl: timedelta,
    ) -> None:
        """`timeout` bounds one request in seconds. `bucket` is where the worker leaves weights, or a way to it.

        `execution_timeout` bounds a job's run (RunPod's own default is ten minutes), `ttl` its whole existence, queue
        included: after that it is gone, even in mid-run. Raises ValueError for a setting that cannot be one.
        """
        self._base = checked_base(base_url, "LORA_RUNPOD_BASE_URL", "/v2")
        if not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"LORA_RUNPOD_ENDPOINT: got {endpoint[:80]!r}, expected letters and digits")
        _check_policy(execution_timeout, ttl)
        token = checked_token(api_key, "RUNPOD_API_KEY", _A_KEY)
        self._transport = GuardedTransport(self._base, token, timeout)
        self._reader = Reader(self._transport, timeout)
        self._endpoint = endpoint
        self._open_bucket = bucket if callable(bucket) else lambda: bucket
        self._execution_timeout, self._ttl = execution_timeout, ttl
        self._lock = threading.Lock()
        self._simulated: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    @property
    def simulated(self) -> bool:
        """Whether a simulator answers."""
        with self._lock:
            known = self._simulated
        if known is None:
            what = f"the state of endpoint {self._endpoint}"
            answer = self._reader.read(self._address("health"), what)
            if answer.status == 404:
                raise Refused(f"RunPod has no endpoint {self._endpoint}. {ENDPOINT_REMEDY}")
            if not succeeded(answer):
                raise refusal(answer, what)
            known = answer.headers.get(SIMULATED_HEADER) == "true"
            with self._lock:
                self._simulated = known
        return known

    def owner(self) -> str:
        """The endpoint's id: RunPod's destinations have no owner."""
        return self._endpoint

    def input_schema(self, trainer: str) -> dict[str, Any]:
        """The worker's parameters; RunPod describes none, so they are those of our contract, whatever the trainer."""
        del trainer
        return worker_input_schema()

    def ensure_destination(self, destination: str, *, description: str) -> None:
        """Nothing: a destination is a file's name."""
        del destination, description

    def upload_file(self, name: str, content: BinaryIO) -> UploadedFile:
        """Refused: RunPod takes no files."""
        del content
        raise Refused(f"RunPod takes no files, so {name} cannot be handed to it. {OBJECT_STORE_REMEDY}")

    def create_training(self, request: TrainingRequest) -> TrainingJob:
        """Start a paid job: sent exactly once. A 4xx surely started nothing, UnknownOutcome may have."""
        key = weights_key(request.token, request.destination)
        body: dict[str, Any] = {
            "input": worker_input(request, self._open_bucket().address(key)),
            "policy": {
                "executionTimeout": _milliseconds(self._execution_timeout),
                "ttl": _milliseconds(self._ttl),
            },
        }
        if request.webhook:
            body["webhook"] = request.webhook
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError):
            raise Refused(
                "the training's input is not JSON (a file, a date, a NaN?); nothing was sent"
            ) from None
        what = f"the creation of a training for {request.destination}"
        secrets = [*secret_values(request.input), request.webhook or ""]
        return creation_outcome(
            self._once(what, content), what, self._endpoint, self._execution_timeout, secrets
        )

    def _once(self, what: str, content: bytes) -> Answer:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        sent = httpx.Request("POST", self._address("run"), headers=headers, content=content)
        try:
            return read_answer(self._transport.handle_request(sent))
        except NOTHING_SENT as error:
            raise ProviderUnavailable(
                f"{self._base.host} cannot be reached for {what} ({described(error)}); nothing was sent"
            ) from None
        except httpx.RequestError as error:
            raise UnknownOutcome(
                f"{self._base.host} did not answer {what} ({described(error)}): it may have been carried out"
            ) from None

    def get_training(self, job_id: str) -> TrainingJob:
        """One job. NotFound says little: RunPod forgets a finished job after half an hour, and a job after its ttl."""
        return self._job("status", job_id, f"job {job_id}", "GET")

    def list_trainings(self) -> Iterator[TrainingPage]:
        """Nothing: RunPod lists no jobs."""
        return iter(())

    def find_training(self, token: str, destination: str) -> TrainingJob | None:
        """The succeeded job whose weights lie in the bucket under this token, or None."""
        store = self._open_bucket()
        key = weights_key(token, destination)
        try:
            found = store.head(key)
        except ObjectNotFound:
            return None
        except ObjectStoreError as error:
            # A permission that is missing says no more about the training than a network that is down.
            raise ProviderUnavailable(f"the weights cannot be looked for: {error}") from None
        written = found.metadata.get(TOKEN_METADATA)
        if written is not None and written != token:
            log.warning("%s carries another run's token: it is not taken for this run's weights", found.key)
            return None
        noted = next((found.metadata[name] for name in JOB_ID_METADATA if name in found.metadata), "")
        return TrainingJob(
            id=noted if _JOB_ID.fullmatch(noted) else "",
            state=JobState.SUCCEEDED,
            provider_status="",
            mark=token,
            output_weights=store.address(key),
            completed_at=found.last_modified,
        )

    def cancel_training(self, job_id: str) -> TrainingJob:
        """Ask for a cancel; asking again is harmless, and it bills until a terminal state is seen."""
        return self._job("cancel", job_id, f"the cancel of job {job_id}", "POST")

    def list_versions(self, model: str) -> Iterator[ProviderVersion]:
        """Nothing: RunPod keeps no versions."""
        del model
        return iter(())

    def delete_file(self, file_id: str) -> None:
        """Nothing: RunPod keeps no files."""
        del file_id

    def download(self, url: str) -> Iterator[bytes]:
        """Stream an object of the bucket, of no other place; nothing is asked for before the first chunk is taken."""
        store = self._open_bucket()
        key = store.key_of(url)
        if key is None:
            raise Refused(f"the weights' address lies outside {store.root}: only what lies there is read")
        try:
            yield from store.stream(key)
        except ObjectNotFound as error:
            raise NotFound(f"the weights are not there: {error}") from None
        except StoreUnavailable as error:
            raise ProviderUnavailable(f"the download of the weights broke off: {error}") from None
        except ObjectStoreError as error:
            raise Refused(f"the weights cannot be read: {error}") from None

    def _job(self, operation: str, job_id: str, what: str, method: str) -> TrainingJob:
        if not _JOB_ID.fullmatch(job_id):
            raise NotFound(
                f"RunPod has no job with the id {job_id[:140]!r}: expected letters, digits and '-'"
            )
        answer = self._reader.read(self._address(operation, job_id), what, method)
        if not succeeded(answer):
            raise refusal(answer, what)
        try:
            job = parse_job(answer.document(), self._execution_timeout)
        except MalformedJob as error:
            raise ProviderUnavailable(f"RunPod's answer for {what} makes no sense: {error}") from None
        if not _same_job(job.id, job_id):
            raise ProviderUnavailable(f"RunPod's answer for {what} is about another job, {job.id!r}")
        # RunPod does not say what trained: whatever runs behind an endpoint is that endpoint's.
        return replace(job, id=job_id, trainer_version=f"runpod/{self._endpoint}")

    def _address(self, *parts: str) -> httpx.URL:
        path = "/".join(quote(part, safe="") for part in ("v2", self._endpoint, *parts))
        return httpx.URL(f"{str(self._base).rstrip('/')}/{path}")


def _same_job(one: str, other: str) -> bool:
    """Whether two spellings name one job: word for word, or by the UUID where one side lacks the suffix."""
    if one == other:
        return True
    try:
        return parse_job_id(one).base == parse_job_id(other).base
    except IdentityError:
        return False


def _check_policy(execution_timeout: timedelta, ttl: timedelta) -> None:
    if not SHORTEST_EXECUTION <= execution_timeout <= LONGEST:
        raise ValueError(
            f"LORA_RUNPOD_EXECUTION_TIMEOUT: got {execution_timeout}, expected 5 seconds to 7 days"
        )
    if not SHORTEST_TTL <= ttl <= LONGEST or ttl < execution_timeout:
        raise ValueError(
            f"the time to live of a RunPod job: got {ttl}, expected 10 seconds to 7 days and no less than its "
            f"execution timeout ({execution_timeout}): RunPod deletes a job at its end, even in mid-run"
        )


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
