"""Fetching images that somebody named by web address, without being led where they may not look.

A name is resolved once, what it resolves to is judged, and that very address is connected to, with the name
kept for the Host header and for TLS: a resolver that answers otherwise the second time is never asked a second
time. Redirects are followed by hand, each judged anew. Everything is bounded: bytes of one and of all, seconds,
number, redirects.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin

import httpx

from lora_pipeline.image_sets.names import shown
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.image_sets.web_addresses import AddressRefused, WebAddress, allowed, parse_address

Resolve = Callable[[str, int], Sequence[str]]
"""From host and port to the addresses of the host; OSError where it has none."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AT_ONCE = 4
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "lora-pipeline"}


class ImagesUnavailable(Exception):
    """Some images could not be fetched; the message names each with the reason. Nothing was kept."""


class TooManyImages(Exception):
    """More images, or more bytes of them, than are allowed in one request."""


@dataclass(frozen=True)
class FetchRules:
    """The bounds of one request's downloads."""

    total_bytes: int = 300_000_000
    image_bytes: int = 50_000_000
    """A 24-megapixel photograph has about 10 MB."""
    images: int = 100
    seconds: float = 60.0
    """For all of them together."""
    wait: float = 10.0
    """For a connection, and between two pieces."""
    redirects: int = 3
    private_hosts: frozenset[str] = frozenset()


def system_resolver(host: str, port: int) -> list[str]:
    """What the system says that a host's addresses are."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch_images(
    urls: Sequence[str], folder: Path, rules: FetchRules, resolve: Resolve = system_resolver
) -> list[ImageSource]:
    """Download each image into `folder` (private, and the caller's to delete), in the given order.

    All or nothing: raises ImagesUnavailable naming every one that could not be had, or TooManyImages.
    """
    if len(urls) > rules.images:
        raise TooManyImages(f"got {len(urls)} images; expected at most {rules.images}")
    budget = _Budget(rules)
    numbered = list(enumerate(urls))

    def one(item: tuple[int, str]) -> ImageSource | str:
        number, url = item
        try:
            return _fetch(url, folder / f"{number:03}", budget, resolve)
        except AddressRefused as refusal:
            return f"image {number + 1} of {len(urls)}: {refusal}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError) as error:
            return f"image {number + 1} of {len(urls)}: it could not be fetched ({type(error).__name__})"

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        results = list(pool.map(one, numbered))
    problems = [result for result in results if isinstance(result, str)]
    if problems:
        raise ImagesUnavailable("; ".join(problems))
    return [result for result in results if isinstance(result, ImageSource)]


@dataclass
class _Budget:
    """What is left for all downloads of one request. Threads share it."""

    rules: FetchRules
    left: int = field(init=False)
    deadline: float = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.left = self.rules.total_bytes
        self.deadline = time.monotonic() + self.rules.seconds

    def spend(self, count: int) -> None:
        with self.lock:
            self.left -= count
            if self.left < 0:
                raise AddressRefused(f"the images have more than {self.rules.total_bytes:,} bytes together")
        self.check_time()

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise AddressRefused(f"the images took longer than {self.rules.seconds:.0f} s together")


def _fetch(url: str, path: Path, budget: _Budget, resolve: Resolve) -> ImageSource:
    named = address = parse_address(url)
    with _client(budget) as client:
        for _ in range(budget.rules.redirects + 1):
            budget.check_time()
            request = _request(client, address, budget.rules, resolve)
            answer = client.send(request, stream=True)
            try:
                if answer.status_code in _REDIRECTS and "location" in answer.headers:
                    address = parse_address(urljoin(address.shown, answer.headers["location"]))
                    continue
                if answer.status_code != HTTPStatus.OK:
                    raise AddressRefused(f"its server answered {answer.status_code}")
                return _source(named, path, _save(answer, path, budget))
            finally:
                answer.close()
    raise AddressRefused(f"it is redirected more than {budget.rules.redirects} times")


@contextmanager
def _client(budget: _Budget) -> Iterator[httpx.Client]:
    """A client that ends with the budget, also where a server sends its headers a byte at a time."""
    with httpx.Client(
        verify=_certificates(), trust_env=False, timeout=budget.rules.wait, follow_redirects=False
    ) as client:
        end = threading.Timer(max(0.0, budget.deadline - time.monotonic()), client.close)
        end.daemon = True
        end.start()
        try:
            yield client
        finally:
            end.cancel()


def _request(client: httpx.Client, address: WebAddress, rules: FetchRules, resolve: Resolve) -> httpx.Request:
    """One request to the judged address of a host, in the host's name."""
    try:
        found = resolve(address.host, address.port)
    except (OSError, UnicodeError):
        raise AddressRefused("its host has no address") from None
    ip = allowed(address, found, rules.private_hosts)
    literal = f"[{ip}]" if ":" in ip else ip
    return client.build_request(
        "GET",
        f"{address.scheme}://{literal}:{address.port}{address.target}",
        headers={**_HEADERS, "Host": address.host_header},
        # The certificate is checked against this name, not against the number that is connected to.
        extensions={"sni_hostname": address.host},
    )


def _save(answer: httpx.Response, path: Path, budget: _Budget) -> str:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        # Raw: a few bytes that decompress into gigabytes are only the few bytes.
        for piece in answer.iter_raw():
            size += len(piece)
            if size > budget.rules.image_bytes:
                raise AddressRefused(f"it has more than {budget.rules.image_bytes:,} bytes")
            budget.spend(len(piece))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _source(address: WebAddress, path: Path, sha256: str) -> ImageSource:
    def pieces() -> list[bytes]:
        return [path.read_bytes()]

    return ImageSource(
        name=shown(address.name),
        address=address.shown,
        fingerprint=sha256,
        arrived_at=datetime.now(UTC),
        open=pieces,
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Reading the authorities takes 20 ms: once a process."""
    return ssl.create_default_context()
