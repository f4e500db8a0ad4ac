"""Starting trainings in threads of this process, so that an answer never waits longer than it should."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking

from lora_pipeline.connections import Connections
from lora_pipeline.trainings.starting import start_training
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

    def start(self, model_key: str, actor: str) -> SubmissionResult | None:
        """Start a model's training; None where that is still going on. Raises what stands in the way."""
        future = self._pool.submit(start_training, self._connections, model_key, asked_by=actor)
        try:
            return future.result(self._wait)
        except StillWorking:
            future.add_done_callback(lambda done: _log_end(model_key, done))
            return None


def _log_end(model_key: str, done: Future[SubmissionResult]) -> None:
    error = done.exception()
    if error is not None:
        log.warning("%s could not be started: %s", model_key, error)
    else:
        log.info("%s: %s", model_key, done.result().outcome.value)
