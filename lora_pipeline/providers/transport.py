"""The HTTP under every provider: one bounded pool of connections, the token's reach, deadlines, retries of reads.

Nothing here knows a provider's paths or what a training is.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from functools import cache

import httpx

from lora_pipeline.providers.answers import Answer, retry_after
from lora_pipeline.providers.protocol import ProviderUnavailable
from lora_pipeline.providers.secrets import scrubbed

POOL = httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=5.0)
"""Twice the eight threads that submit. Idle connections are given up early: one that the server closed meanwhile
would turn a creation into an unknown outcome."""
ANSWER_CAP = 64 * 2**20
"""Logs of several megabytes occur in answers; anything above this is no answer."""
PAUSES = (0.1, 0.3)
"""Before the second and third attempt of a read."""
SHORT_WAIT_S = 2.0
"""A longer Retry-After is the caller's to plan: a tick has other things to do."""
NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""Raised before the first byte of a request leaves: there was no connection to send it on."""
_STALL_S = 60.0


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificate authorities takes 30 ms: once a process, not once a provider."""
    return httpx.create_ssl_context()


class GuardedTransport(httpx.BaseTransport):
    """Sends requests: the token to the provider's own origin only, and no answer takes longer than `timeout`."""

    def __init__(self, base: httpx.URL, token: str, timeout: float) -> None:
        self._base = base
        self._token = token
        self._timeout = timeout
        self._inner = httpx.HTTPTransport(verify=_tls(), limits=POOL)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, once."""
        if same_origin(request.url, self._base):
            request.headers["Authorization"] = f"Bearer {self._token}"
        else:
            request.headers.pop("Authorization", None)
        request.headers.setdefault("User-Agent", "lora-pipeline")
        budget: float = request.extensions.get("budget", self._timeout)
        deadline: float | None = time.monotonic() + budget
        timeouts = httpx.Timeout(budget, connect=min(budget, self._timeout))
        if request.extensions.get("streamed") or _is_upload(request):
            # Large bodies: no deadline for the whole, but none may stall.
            deadline = None
            timeouts = httpx.Timeout(_STALL_S, connect=self._timeout)
        request.extensions = {**request.extensions, "timeout": timeouts.as_dict()}
        response = self._inner.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        if deadline is not None:
            response.stream = _DeadlineStream(response.stream, deadline)
        response.request = request
        return response

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()


class _DeadlineStream(httpx.SyncByteStream):
    """A body that must have come by a point in time, however steadily it trickles."""

    def __init__(self, inner: httpx.SyncByteStream, deadline: float) -> None:
        self._inner = inner
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the answer took longer than one request may")
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _is_upload(request: httpx.Request) -> bool:
    return str(request.headers.get("Content-Type", "")).startswith("multipart/")


class Reader:
    """Asks a provider for what may be asked for again, safe for several threads."""

    def __init__(self, transport: GuardedTransport, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout

    def read(self, url: httpx.URL, what: str, method: str = "GET") -> Answer:
        """One answer, good or bad, asked for up to three times within the timeout.

        Raises ProviderUnavailable where there was none.
        """
        deadline = time.monotonic() + self._timeout
        for pause in (*PAUSES, None):
            try:
                answer: Answer | None = self._once(method, url, deadline)
                trouble = ""
            except httpx.RequestError as error:
                answer, trouble = None, described(error)
            wait = _pause_before_retry(answer, pause)
            if wait is None or time.monotonic() + wait >= deadline:
                break
            time.sleep(wait)
        if answer is None:
            raise ProviderUnavailable(f"{url.host} did not answer {what} ({trouble}); it will be asked again")
        return answer

    def _once(self, method: str, url: httpx.URL, deadline: float) -> Answer:
        budget = max(deadline - time.monotonic(), 0.001)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        request = httpx.Request(method, url, headers=headers, extensions={"budget": budget})
        answer = read_answer(self._transport.handle_request(request))
        if answer.body is None:
            raise httpx.ReadError("the answer broke off, was too slow, or was too large")
        return answer


def _pause_before_retry(answer: Answer | None, pause: float | None) -> float | None:
    if pause is None or (answer is not None and answer.status < 500 and answer.status != 429):
        return None
    if answer is None or answer.status != 429:
        return pause
    wait = retry_after(answer)
    return max(wait, pause) if wait <= SHORT_WAIT_S else None


def read_answer(response: httpx.Response) -> Answer:
    """The whole answer; without a body where the connection broke in it, or it was beyond all measure."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > ANSWER_CAP:
                return Answer(response.status_code, headers, None)
    except httpx.RequestError:
        return Answer(response.status_code, headers, None)
    finally:
        response.close()
    return Answer(response.status_code, headers, bytes(body))


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def described(error: httpx.RequestError) -> str:
    """An error of the connection, for people."""
    text = scrubbed(str(error))[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(url: httpx.URL) -> str:
    """Scheme and host only: the rest of an address may be what gives access."""
    return (
        f"{url.scheme or 'no scheme'}://{url.host}"
        if url.host
        else f"an address without a host ({url.scheme or 'no scheme'})"
    )


def checked_base(base_url: str, setting: str, version: str) -> httpx.URL:
    """The provider's origin, without a closing `version` (`/v1`). ValueError names the setting, never the address."""
    try:
        base = httpx.URL(base_url.rstrip("/").removesuffix(version))
    except httpx.InvalidURL:
        base = httpx.URL("")
    if base.scheme not in ("http", "https") or not base.host or base.query or base.userinfo:
        raise ValueError(
            f"{setting}: got an address of {place_of(base)}, expected https://host without user or query"
        )
    return base


def checked_token(token: str, setting: str, expected: str) -> str:
    """A token that a header can carry. ValueError names the setting, never the token."""
    # A line break at its end, as files have, would make httpx quote the whole header in its error.
    token = token.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError(f"{setting}: got characters that no token has (or nothing), expected {expected}")
    return token
