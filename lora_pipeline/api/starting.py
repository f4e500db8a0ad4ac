"""Starting trainings in threads of this process, so that an answer never waits longer than it should."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking

from lora_pipeline.connections import Connections
from lora_pipeline.providers.secrets import scrubbed
from lora_pipeline.trainings.asking import AskedTraining, start_asked
from lora_pipeline.trainings.submission import SubmissionResult

log = logging.getLogger(__name__)

WAIT_S = 20.0
"""How long a caller is kept waiting for the provider's training id; proxies give up after 30 s or more."""
_THREADS = 4


class Starter:
    """Packs and submits what was asked for. What this process does not finish, Dagster's sensor takes up."""

    def __init__(self, connections: Connections, wait: float = WAIT_S) -> None:
        self._connections = connections
        self._wait = wait
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="start")
        self._lock = threading.Lock()
        self._at_work: dict[tuple[str, int], Future[SubmissionResult | None]] = {}

    def start(self, wanted: AskedTraining, actor: str) -> SubmissionResult | None:
        """Start a model's training; None where that is still going on, or was done. Raises what stands in the way.

        Who asks for what is being started already (a button pressed twice) waits for that and gets its result.
        """
        future = self._begun(wanted, actor)
        try:
            return future.result(self._wait)
        except StillWorking:
            return None

    def _begun(self, wanted: AskedTraining, actor: str) -> Future[SubmissionResult | None]:
        what = wanted.model_key, wanted.asked.image_set_id
        with self._lock:
            known = self._at_work.get(what)
            if known is not None:
                return known
            future = self._pool.submit(start_asked, self._connections, wanted, asked_by=actor)
            self._at_work[what] = future
        future.add_done_callback(lambda done: self._ended(what, done))
        return future

    def _ended(self, what: tuple[str, int], done: Future[SubmissionResult | None]) -> None:
        with self._lock:
            del self._at_work[what]
        error = done.exception()
        if error is not None:
            log.warning("%s could not be started: %s", what[0], scrubbed(str(error)))
