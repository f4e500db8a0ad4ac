"""Counting requests: how many of which route ended how, and how long they took."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import Any

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RequestCounts:
    """Counters and a latency histogram by route. Routes, not paths: a path may name a user, and there are many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = defaultdict(float)

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._counts[method, route, status] += 1
            buckets = self._buckets.setdefault((method, route), [0] * (len(BUCKETS_S) + 1))
            buckets[next((i for i, bound in enumerate(BUCKETS_S) if seconds <= bound), len(BUCKETS_S))] += 1
            self._sums[method, route] += seconds

    def lines(self) -> list[str]:
        """In the text format of Prometheus."""
        with self._lock:
            counts, sums = dict(self._counts), dict(self._sums)
            buckets = {name: list(found) for name, found in self._buckets.items()}
        lines = [
            "# HELP lora_http_requests_total Requests that were answered.",
            "# TYPE lora_http_requests_total counter",
        ]
        for (method, route, status), count in sorted(counts.items()):
            lines.append(
                f'lora_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
            )
        name = "lora_http_request_seconds"
        lines += [f"# HELP {name} How long answers took.", f"# TYPE {name} histogram"]
        for (method, route), found in sorted(buckets.items()):
            labels = f'method="{method}",route="{route}"'
            total = 0
            for bound, count in zip((*BUCKETS_S, "+Inf"), found, strict=True):
                total += count
                lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
            lines.append(f"{name}_sum{{{labels}}} {sums[method, route]:.6f}")
            lines.append(f"{name}_count{{{labels}}} {total}")
        return lines


class Measured:
    """ASGI middleware that counts every request."""

    def __init__(self, app: Any, counts: RequestCounts) -> None:
        self.app, self._counts = app, counts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"].isalpha() else "other"
            self._counts.add(method[:10], route, status, time.perf_counter() - began)
