"""The HTTP under the Replicate provider: one bounded pool of connections, the token's reach, deadlines, retries.

Nothing here knows what a training is. The official client sends its requests through `transport`, reads and
downloads use it directly: the client would follow addresses of other hosts with the token, and wait as long as any
Retry-After asks.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address

import httpx

from lora_pipeline.providers.protocol import NotFound, ProviderUnavailable, Refused
from lora_pipeline.providers.replicate_answers import Answer
from lora_pipeline.providers.replicate_refusals import refusal, retry_after
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
MAX_REDIRECTS = 3
CHUNK = 1 << 20
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
    return request.method == "POST" and request.url.path.endswith("/v1/files")


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


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


class Wire:
    """Reads and downloads at one provider, safe for several threads."""

    def __init__(self, base_url: str, token: str, timeout: float) -> None:
        self.base = _checked_base(base_url)
        self._timeout = timeout
        self.transport = GuardedTransport(self.base, _checked_token(token), timeout)

    def address(self, path_or_url: str) -> httpx.URL:
        """An address of the provider's own. Raises ProviderUnavailable for one that leads elsewhere."""
        own = path_or_url.startswith("/")
        try:
            url = httpx.URL(f"{str(self.base).rstrip('/')}{path_or_url}" if own else path_or_url)
        except httpx.InvalidURL:
            url = httpx.URL("invalid:")
        if not same_origin(url, self.base):
            raise ProviderUnavailable(
                f"Replicate's answer points to {_place(url)}, expected {self.base.host}: the token goes nowhere else"
            )
        return url

    def read(self, path_or_url: str, what: str, method: str = "GET") -> Answer:
        """One answer of the provider, good or bad, asked for up to three times within the timeout.

        Raises ProviderUnavailable where there was none.
        """
        url = self.address(path_or_url)
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
            raise ProviderUnavailable(
                f"{self.base.host} did not answer {what} ({trouble}); it will be asked again"
            )
        return answer

    def _once(self, method: str, url: httpx.URL, deadline: float) -> Answer:
        budget = max(deadline - time.monotonic(), 0.001)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        request = httpx.Request(method, url, headers=headers, extensions={"budget": budget})
        answer = read_answer(self.transport.handle_request(request))
        if answer.body is None:
            raise httpx.ReadError("the answer broke off, was too slow, or was too large")
        return answer

    def download(self, url: str) -> Iterator[bytes]:
        """The bytes at an output's address, as they arrive. The token goes along only to the provider's own origin."""
        response = self._open(url)
        try:
            yield from response.iter_bytes(CHUNK)
        except httpx.RequestError as error:
            host = response.request.url.host
            raise ProviderUnavailable(f"the download from {host} broke off ({described(error)})") from None
        finally:
            response.close()

    def _open(self, address: str) -> httpx.Response:
        url = self._checked_download(address, None)
        for _ in range(MAX_REDIRECTS + 1):
            # Asked for as it is: a body that was packed again on the way would not have the length it promises.
            headers = {"Accept-Encoding": "identity"}
            request = httpx.Request("GET", url, headers=headers, extensions={"streamed": True})
            try:
                response = self.transport.handle_request(request)
            except httpx.RequestError as error:
                raise ProviderUnavailable(f"{url.host} cannot be read from ({described(error)})") from None
            if response.status_code == 200:
                return response
            if not response.has_redirect_location:
                raise _no_download(read_answer(response), url)
            response.close()
            url = self._checked_download(response.headers["Location"], url)
        raise ProviderUnavailable(
            f"the download was redirected more than {MAX_REDIRECTS} times, last to {url.host}"
        )

    def _checked_download(self, address: str, current: httpx.URL | None) -> httpx.URL:
        """The address, refused where it would send a request in the clear to anywhere but this machine or the base."""
        try:
            url = current.join(address) if current else httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL("invalid:")
        plain = url.scheme == "http" and (same_origin(url, self.base) or _is_loopback(url.host))
        if not url.host or not (url.scheme == "https" or plain):
            raise Refused(f"the output's address leads to {_place(url)}: expected https")
        return url

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()


def _no_download(answer: Answer, url: httpx.URL) -> Exception:
    if answer.status in (403, 404, 410):
        # S3 answers 403 to an address whose signature has expired.
        return NotFound(f"{url.host} no longer has the file, or its address has expired ({answer.status})")
    return refusal(answer, f"the download from {url.host}")


def _pause_before_retry(answer: Answer | None, pause: float | None) -> float | None:
    if pause is None or (answer is not None and answer.status < 500 and answer.status != 429):
        return None
    if answer is None or answer.status != 429:
        return pause
    wait = retry_after(answer)
    return max(wait, pause) if wait <= SHORT_WAIT_S else None


def described(error: httpx.RequestError) -> str:
    """An error of the connection, for people."""
    text = scrubbed(str(error))[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(url: httpx.URL) -> str:
    """Scheme and host only: the rest of an address may be what gives access."""
    return (
        f"{url.scheme or 'no scheme'}://{url.host}"
        if url.host
        else f"an address without a host ({url.scheme or 'no scheme'})"
    )


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _checked_base(base_url: str) -> httpx.URL:
    try:
        base = httpx.URL(base_url.rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL:
        base = httpx.URL("")
    if base.scheme not in ("http", "https") or not base.host or base.query or base.userinfo:
        raise ValueError(
            f"REPLICATE_BASE_URL: got an address of {_place(base)}, expected https://host without user or query"
        )
    return base


def _checked_token(token: str) -> str:
    # A line break at its end, as files have, would make httpx quote the whole header in its error.
    token = token.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ValueError(
            "REPLICATE_API_TOKEN: got characters that no token has (or nothing), expected r8_ and letters and digits. "
            "Copy it again from https://replicate.com/account/api-tokens"
        )
    return token
