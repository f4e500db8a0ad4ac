"""Replicate's addresses: reads at its own origin, and downloads that may lead elsewhere, without the token.

Nothing here knows what a training is. The official client sends its requests through `transport`, reads and
downloads use it directly: the client would follow addresses of other hosts with the token, and wait as long as any
Retry-After asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_address

import httpx

from lora_pipeline.providers.answers import Answer
from lora_pipeline.providers.protocol import NotFound, ProviderUnavailable, Refused
from lora_pipeline.providers.replicate_refusals import refusal
from lora_pipeline.providers.transport import (
    GuardedTransport,
    Reader,
    checked_base,
    checked_token,
    described,
    place_of,
    read_answer,
    same_origin,
)

MAX_REDIRECTS = 3
CHUNK = 1 << 20
_A_TOKEN = "r8_ and letters and digits. Copy it again from https://replicate.com/account/api-tokens"  # noqa: S105


class Wire:
    """Reads and downloads at one provider, safe for several threads."""

    def __init__(self, base_url: str, token: str, timeout: float) -> None:
        self.base = checked_base(base_url, "REPLICATE_BASE_URL", "/v1")
        self.transport = GuardedTransport(
            self.base, checked_token(token, "REPLICATE_API_TOKEN", _A_TOKEN), timeout
        )
        self._reader = Reader(self.transport, timeout)

    def address(self, path_or_url: str) -> httpx.URL:
        """An address of the provider's own. Raises ProviderUnavailable for one that leads elsewhere."""
        own = path_or_url.startswith("/")
        try:
            url = httpx.URL(f"{str(self.base).rstrip('/')}{path_or_url}" if own else path_or_url)
        except httpx.InvalidURL:
            url = httpx.URL("invalid:")
        if not same_origin(url, self.base):
            raise ProviderUnavailable(
                f"Replicate's answer points to {place_of(url)}, expected {self.base.host}: the token goes nowhere else"
            )
        return url

    def read(self, path_or_url: str, what: str, method: str = "GET") -> Answer:
        """One answer of the provider, good or bad, asked for up to three times within the timeout.

        Raises ProviderUnavailable where there was none.
        """
        return self._reader.read(self.address(path_or_url), what, method)

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
            raise Refused(f"the output's address leads to {place_of(url)}: expected https")
        return url

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()


def _no_download(answer: Answer, url: httpx.URL) -> Exception:
    if answer.status in (403, 404, 410):
        # S3 answers 403 to an address whose signature has expired.
        return NotFound(f"{url.host} no longer has the file, or its address has expired ({answer.status})")
    return refusal(answer, f"the download from {url.host}")


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
