"""The one background task: what a provider does by itself, at its time. Looking into ZIPs, working off RunPod's jobs,
sending webhooks.

Only trainings that have started and wait for their ZIP, jobs with work to do, and those with a webhook, are looked at; all other state
is computed when somebody asks. `catch_up` does everything that is due and returns when it is done: the control
interface calls it, so that a test sees the consequences of moving the clock at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from lora_pipeline.simulator.fetching import download, spool
from lora_pipeline.simulator.training_zip import Seen, inspect, refused
from lora_pipeline.simulator.trainings import Training

if TYPE_CHECKING:
    import httpx

    from lora_pipeline.simulator.simulator import Simulator

log = logging.getLogger(__name__)
TICK_S = 0.1
PARALLEL_DOWNLOADS = 4


class Attendant:
    """Looks after what is due; `run` for as long as the simulator is up."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._postman = simulator.postman
        self._zips_at_a_time = asyncio.Lock()
        self._jobs_at_a_time = asyncio.Lock()
        self._posts_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Tick until cancelled. A receiver or a bucket that does not answer must not keep the rest waiting: loops."""
        await asyncio.gather(_for_ever(self._open_zips), _for_ever(self._work), _for_ever(self._post))

    async def catch_up(self) -> None:
        """Do everything that is due now: ZIPs and jobs first, for they decide what there is to tell."""
        await self._open_zips()
        await self._work()
        await self._post()

    async def _work(self) -> None:
        async with self._jobs_at_a_time:
            await self._simulator.worker.catch_up()

    async def _post(self) -> None:
        async with self._posts_at_a_time:
            self._simulator.job_events.queue_due()
            await self._postman.catch_up()

    async def _open_zips(self) -> None:
        async with self._zips_at_a_time:
            while waiting := self._simulator.ledger.waiting_for_archive(self._simulator.clock.now()):
                await self._look_into(waiting)

    async def _look_into(self, trainings: list[Training]) -> None:
        import httpx

        places = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        async with httpx.AsyncClient(timeout=30.0, follow_redirects=True) as client:

            async def one(training: Training) -> None:
                async with places:
                    seen = await self._open(client, training)
                self._simulator.ledger.archive_seen(training.id, seen.images, seen.captions, seen.error)

            await asyncio.gather(*(one(training) for training in trainings))

    async def _open(self, client: httpx.AsyncClient, training: Training) -> Seen:
        """Fetch a training's ZIP and inspect it; every failure is an answer."""
        address = str(training.input["input_images"])
        minimum = self._simulator.settings.minimum_images
        own = self._own_file(training, address)
        if own is not None:
            with own:
                return await asyncio.to_thread(inspect, own, minimum)
        cap = self._simulator.settings.archive_cap_bytes
        with spool() as file:
            error = await download(client, address, file, cap, "input_images")
            return refused(error) if error else await asyncio.to_thread(inspect, file, minimum)

    def _own_file(self, training: Training, address: str) -> BinaryIO | None:
        """The file uploaded to this simulator that the address names, if it does and it is still there."""
        path = urlsplit(address).path
        if not address.startswith(f"{training.base_url}/v1/files/"):
            return None
        identity = path.rpartition("/")[2]
        found = self._simulator.shelf.find(identity, self._simulator.settings.file_lifetime_s)
        return self._simulator.shelf.path(identity).open("rb") if found else None


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Again and again; an error in one round is logged and does not end the task."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("the simulator's background task failed; it goes on")
        await asyncio.sleep(TICK_S)
