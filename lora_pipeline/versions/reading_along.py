"""Reading the trainings list in a thread, while another works with what has been read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Self

from lora_pipeline.versions.trainings_index import TrainingsIndex


class ReadingAlong:
    """Context manager: reads until `enough` says so, and no further once it is left."""

    def __init__(self, index: TrainingsIndex, enough: Callable[[], bool]) -> None:
        self._index = index
        self._enough = enough
        self._left = False
        self._news: SimpleQueue[bool] = SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="trainings list", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._thread.join()

    def pages(self) -> Iterator[None]:
        """Comes round after each page, and ends when there is nothing more to read. Raises what reading raised."""
        while self._news.get():
            yield
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            self._index.read(self._page_or_end)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
            self._error = error
        finally:
            self._news.put(False)

    def _page_or_end(self) -> bool:
        self._news.put(True)
        return self._left or self._enough()
