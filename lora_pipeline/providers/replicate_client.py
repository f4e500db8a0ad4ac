"""The official client, as the maker of requests that change something, and of nothing else.

It never retries a POST, and knows paths and bodies. Its answers are not parsed by it: `Training(**json)` raises on
`aborted` and on output versions without an owner, after the training was created and paid. Reads bypass it: it
retries them for minutes, and waits as long as any Retry-After asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from lora_pipeline.providers.answers import Answer
from lora_pipeline.providers.protocol import ProviderUnavailable, UnknownOutcome
from lora_pipeline.providers.replicate_wire import Wire
from lora_pipeline.providers.transport import NOTHING_SENT, described, read_answer

if TYPE_CHECKING:
    from replicate.client import Client


class _Answered(Exception):
    """Carries an answer out of the client before the client tries to parse it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


def _hand_over(response: httpx.Response) -> None:
    """Response hook: the client's part ends here, so that no answer can be lost in it."""
    raise _Answered(read_answer(response))


class OfficialClient:
    """Sends each request once through the wire, safe for several threads."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._made: Client | None = None

    def once(self, what: str, send: Callable[[Client], object]) -> Answer:
        """The answer to one request, good or bad.

        Raises ProviderUnavailable where nothing was sent, UnknownOutcome where no answer came.
        """
        try:
            send(self._client())
        except _Answered as answered:
            return answered.answer
        except NOTHING_SENT as error:
            raise ProviderUnavailable(
                f"{self._wire.base.host} cannot be reached for {what} ({described(error)}); nothing was sent"
            ) from None
        except httpx.RequestError as error:
            raise UnknownOutcome(
                f"{self._wire.base.host} did not answer {what} ({described(error)}): it may have been carried out"
            ) from None
        raise UnknownOutcome(f"the client ended {what} without an answer: it may have been carried out")

    def repeatable(self, what: str, send: Callable[[Client], object]) -> Answer:
        """The same for what may be sent again: an unknown outcome is no worse than none."""
        try:
            return self.once(what, send)
        except UnknownOutcome as error:
            raise ProviderUnavailable(f"{error}; asking again does no harm") from None

    def _client(self) -> Client:
        with self._lock:
            if self._made is None:
                # Loads numpy and pydantic's old half: not at import.
                from replicate.client import Client

                self._made = Client(
                    # The transport sets the token, on the provider's own origin only.
                    headers={"Authorization": "Bearer set-by-the-transport"},
                    base_url=str(self._wire.base),
                    transport=self._wire.transport,
                    event_hooks={"response": [_hand_over]},
                )
            return self._made
