"""What the routes share in one process: connections, bounds, and the work that goes on behind an answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from lora_pipeline.access.links import LINK_LIFE, LinkSigner, link_signer
from lora_pipeline.api.answers import LinkAnswer
from lora_pipeline.api.limits import AtMost, TokenBuckets
from lora_pipeline.api.measuring import RequestCounts
from lora_pipeline.api.refreshing import ProgressBoard, Refresher
from lora_pipeline.api.starting import Starter
from lora_pipeline.connections import Connections
from lora_pipeline.settings import PROVIDERS

_BURST_S = 4
_FAILURES_AT_ONCE, _FAILURES_A_SECOND = 20, 0.5
_UPLOADS_AT_ONCE = 4
_PROVIDER_CALLS_AT_ONCE = 8
_STARTS_AT_ONCE = 8


class Services:
    """Made once with the application; connects at first use."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        rate = connections.settings.api_rate
        self.requests = TokenBuckets(rate, rate * _BURST_S)
        """By key."""
        self.failures = TokenBuckets(_FAILURES_A_SECOND, _FAILURES_AT_ONCE)
        """Refused keys, by the address that they came from."""
        self.uploads = AtMost(_UPLOADS_AT_ONCE)
        self.starts = AtMost(_STARTS_AT_ONCE)
        self.provider_calls = AtMost(_PROVIDER_CALLS_AT_ONCE)
        self.counts = RequestCounts()
        self.drift: tuple[float, dict[str, int]] | None = None
        """Models by verdict, and when that was read."""
        self.starter = Starter(connections)
        self.refreshers: dict[str, Refresher] = {name: Refresher(connections, name) for name in PROVIDERS}
        self.board = ProgressBoard(connections)

    @cached_property
    def jobs(self) -> ThreadPoolExecutor:
        """Where long work goes on after its answer."""
        return ThreadPoolExecutor(1, thread_name_prefix="job")

    @cached_property
    def links(self) -> LinkSigner:
        """Signs short-lived links."""
        return link_signer(self.connections.database, self.connections.now())

    def signed(self, path: str, life: timedelta = LINK_LIFE) -> LinkAnswer:
        """The whole address of one of our paths, open to whoever has it for a while."""
        link = self.links.sign(path, self.connections.now(), life)
        public_url = self.connections.settings.resolved_public_url
        return LinkAnswer(url=f"{public_url}{link.address}", expires_at=link.expires_at)


async def services_of(request: Request) -> Services:
    """The application's services."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Shared = Annotated[Services, Depends(services_of)]
