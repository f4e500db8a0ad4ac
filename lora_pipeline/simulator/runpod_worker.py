"""The simulated worker of an endpoint, in the manner of kohya's trainers: what it does besides letting time pass.

It downloads the dataset when its job starts, and leaves a valid LoRA in the bucket when the job ends, over the real
protocols and with boto3, as workers do. It imports nothing of the pipeline: the contract is read here a second time,
so that a mistake in the one reading cannot hide in the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lora_pipeline.simulator.fetching import download, spool
from lora_pipeline.simulator.logs import progress
from lora_pipeline.simulator.runpod_jobs import Job
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.training_zip import Seen, inspect, refused
from lora_pipeline.simulator.weights import HTML_PAGE, packed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import httpx
    from mypy_boto3_s3 import S3Client

    from lora_pipeline.simulator.simulator import Simulator

log = logging.getLogger(__name__)
PARALLEL = 4
NEEDED = ("job_id", "dataset_url", "model_name", "s3_bucket", "s3_key")
FOREIGN_TOKEN = "another-run"  # noqa: S105


class Worker:
    """Does what is due of every job; `catch_up` returns when all of it is done."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._clients: dict[str, S3Client] = {}

    async def catch_up(self) -> None:
        """Datasets first: one that is no ZIP ends its job before there is anything to leave."""
        book, clock = self._simulator.jobs, self._simulator.clock
        while jobs := book.to_fetch(clock.now().life):
            await self._fetch_all(jobs)
        while jobs := book.to_upload(clock.now().life):
            await _side_by_side(jobs, self._leave)

    async def _fetch_all(self, jobs: list[Job]) -> None:
        import httpx

        async with httpx.AsyncClient(timeout=30.0, follow_redirects=True) as client:

            async def one(job: Job) -> None:
                seen = await self._open(client, job)
                self._simulator.jobs.archive_seen(job, seen.images, seen.error)

            await _side_by_side(jobs, one)

    async def _open(self, client: httpx.AsyncClient, job: Job) -> Seen:
        missing = [name for name in NEEDED if not isinstance(job.input.get(name), str)]
        if missing:
            return refused(f"the input lacks {', '.join(missing)}")
        settings = self._simulator.settings
        with spool() as file:
            cap = settings.archive_cap_bytes
            error = await download(client, job.input["dataset_url"], file, cap, "dataset_url")
            if error:
                return refused(error)
            return await asyncio.to_thread(inspect, file, settings.minimum_images, "dataset_url")

    async def _leave(self, job: Job) -> None:
        """Put the object into the bucket. Whatever goes wrong there is an exception in the handler."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        settings = self._simulator.settings
        try:
            size = await asyncio.to_thread(self._put, job, settings)
        except (Boto3Error, BotoCoreError, ClientError, LookupError, ValueError) as error:
            log.warning("job %s could not leave its weights: %s", job.id, type(error).__name__)
            self._simulator.jobs.fail(job, type(error).__name__, str(error), job.ends_life)
        else:
            self._simulator.jobs.uploaded(job, size)

    def _put(self, job: Job, settings: SimulatorSettings) -> int:
        content = object_bytes(job, settings)
        self._client(settings).put_object(
            Bucket=job.input["s3_bucket"],
            Key=job.input["s3_key"],
            Body=content,
            Metadata=object_metadata(job),
        )
        return len(content)

    def _client(self, settings: SimulatorSettings) -> S3Client:
        """One client for each set of settings: making one takes as long as many uploads."""
        key = json.dumps(settings.worker_aws, sort_keys=True)
        if key not in self._clients:
            self._clients[key] = make_client({**os.environ, **settings.worker_aws})
        return self._clients[key]


async def _side_by_side(jobs: list[Job], work: Callable[[Job], Awaitable[None]]) -> None:
    places = asyncio.Semaphore(PARALLEL)

    async def one(job: Job) -> None:
        async with places:
            await work(job)

    await asyncio.gather(*(one(job) for job in jobs))


def make_client(env: dict[str, str]) -> S3Client:
    """A client of the bucket that the standard `AWS_…` settings name."""
    import boto3
    from botocore.config import Config

    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    session = boto3.Session(
        aws_access_key_id=env.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=env.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=env.get("AWS_SESSION_TOKEN"),
        region_name=region_of(env),
        profile_name=env.get("AWS_PROFILE") if not env.get("AWS_ACCESS_KEY_ID") else None,
    )
    config = Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"total_max_attempts": 2},
        s3={"addressing_style": "path"} if endpoint else {},
        # Other stores than Amazon's do not all know the checksums that newer clients send unasked.
        request_checksum_calculation="when_required",
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


def region_of(env: dict[str, str]) -> str:
    """The bucket's region, as the settings say."""
    return env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"


def object_metadata(job: Job) -> dict[str, str]:
    """What stands beside the object: whose it is."""
    token = FOREIGN_TOKEN if job.quirks.metadata == "other_token" else str(job.token)
    match job.quirks.metadata:
        case "none":
            return {}
        case "hyphens":
            return {"runpod-job-id": job.id, "token": token}
    return {"runpod_job_id": job.id, "token": token}


def object_address(job: Job, settings: SimulatorSettings) -> str:
    """The object's https address, in the spelling of workers in use."""
    bucket, key = job.input.get("s3_bucket", ""), quote(str(job.input.get("s3_key", "")))
    if settings.worker_url_spelling == "accelerate":
        return f"https://{bucket}.s3-accelerate.amazonaws.com/{key}"
    return f"https://{bucket}.s3.{region_of({**os.environ, **settings.worker_aws})}.amazonaws.com/{key}"


def output_json(job: Job, settings: SimulatorSettings) -> dict[str, Any] | None:
    """What the handler returned: the shape of a recorded webhook. `job_id` is the caller's, not RunPod's."""
    match job.quirks.output:
        case "none":
            return None
        case "not_ok":
            return {"ok": False, "job_id": job.token}
        case "error":
            return {"status": "error", "job_id": job.token, "error": "CUDA error: out of memory"}
    address = object_address(job, settings)
    return {
        "job_id": job.token,
        "loraName": job.input.get("model_name"),
        "loraUrl": address,
        "status": "success",
        "training_type": job.input.get("training_type", "person"),
        "model_info": {"download_url": address, "size_bytes": job.size},
    }


def progress_json(job: Job, life: float) -> dict[str, Any] | None:
    """What the handler reports on its way; None before its first step."""
    done = job.steps_at(life)
    if not done:
        return None
    seconds = life - job.starts_life - job.setup_s
    # As kohya's scripts print it: the loss falls from about 0.12.
    loss = f", avr_loss={0.12 - 0.04 * done / max(job.steps, 1):.4f}"
    return {
        "job_id": job.token,
        "step": done,
        "max_train_steps": job.steps,
        "log": progress("steps: ", done, job.steps, seconds, loss),
    }


def kohya_shapes(rank: int, blocks: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as kohya's scripts write a Flux LoRA."""
    for block in range(blocks):
        for layer in ("img_attn_proj", "img_attn_qkv", "txt_attn_proj"):
            name = f"lora_unet_double_blocks_{block}_{layer}"
            yield f"{name}.alpha", ()
            yield f"{name}.lora_down.weight", (rank, width)
            yield f"{name}.lora_up.weight", (width, rank)


def object_bytes(job: Job, settings: SimulatorSettings) -> bytes:
    """The object: a small, valid LoRA that says that it is simulated, or what its quirk makes of it.

    The same attempt gives the same bytes, two attempts never the same tensors.
    """
    rank, alpha = int(job.input.get("network_dim") or 16), float(job.input.get("network_alpha") or 16)
    shapes = list(kohya_shapes(rank, settings.lora_blocks, settings.lora_width))
    alphas = {name: alpha for name, shape in shapes if not shape}
    damage = job.quirks.upload
    seed = f"{job.id}/{job.attempt}"
    lora = packed(shapes, _metadata(job, rank, alpha), seed, finite=damage != "not_finite", fixed=alphas)
    return {
        "truncated": lora[: len(lora) // 2],
        "html": HTML_PAGE,
        "not_safetensors": b"PK\x03\x04" + lora[4:],
        "header_too_long": (2**40).to_bytes(8, "little") + lora[8:],
    }.get(damage or "", lora)


def _metadata(job: Job, rank: int, alpha: float) -> dict[str, str]:
    return {
        "format": "pt",
        "simulated": "true",
        "ss_base_model_version": "flux1",
        "ss_output_name": str(job.input.get("model_name", "")),
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_learning_rate": str(job.input.get("learning_rate", 0.0001)),
        "ss_max_train_steps": str(job.steps),
        "ss_steps": str(job.steps),
    }
