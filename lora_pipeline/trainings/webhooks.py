"""Webhook deliveries: verified over their raw bytes, and stored once, as hints.

A delivery says only that there is something to ask the provider about: its body is never believed further
and never stored, since it carries the dataset's address and the whole log. What becomes of a hint is in
`hints`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from lora_pipeline.database.inserting import insertion
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import WebhookDelivery

MAX_BODY_BYTES = 32 * 2**20
"""Logs of several megabytes occur; a refusal for size loses the event for good."""

_REFETCH_S = 300.0
_DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,128}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_STATUS_CHARS = 32


class SignatureRefused(Exception):
    """The delivery is not signed with our secret, or not signed lately: nothing in it may be believed."""


class DeliveryUnreadable(Exception):
    """Properly signed, and no training: nothing to ask the provider about."""


@dataclass(frozen=True)
class Delivery:
    """What is kept of one verified delivery."""

    delivery_id: str
    """The same on each retry of one event."""
    job_id: str
    status: str
    body_sha256: str


class SigningSecret:
    """The secret that deliveries are signed with: a given one, or the provider's own, asked for when needed.

    Safe for several threads. The provider's is asked for again after a signature that does not fit, for it
    may have been changed; at most every five minutes, so that forgers cannot make us ask.
    """

    def __init__(
        self,
        ask: Callable[[], str],
        given: str | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._given = given
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: str | None = None
        self._asked_at = 0.0

    def current(self) -> str:
        """The secret as far as it is known. Raises ProviderError where it had to be asked for in vain."""
        if self._given:
            return self._given
        with self._lock:
            return self._known or self._fetch()

    def changed(self) -> str | None:
        """Another secret than the known one, where the provider has one by now; None where not."""
        with self._lock:
            if self._given or self._monotonic() - self._asked_at < _REFETCH_S:
                return None
            before = self._known
            return found if (found := self._fetch()) != before else None

    def _fetch(self) -> str:
        self._asked_at = self._monotonic()
        self._known = self._ask()
        return self._known


def verified_delivery(secret: SigningSecret, headers: Mapping[str, str], body: bytes) -> Delivery:
    """The delivery, if it is signed over these very bytes, and not more than five minutes ago.

    Raises SignatureRefused, DeliveryUnreadable, and ProviderError where the secret could not be asked for.
    """
    try:
        _verify(secret.current(), headers, body)
    except SignatureRefused:
        newer = secret.changed()
        if newer is None:
            raise
        _verify(newer, headers, body)
    return read_delivery(headers, body)


def read_delivery(headers: Mapping[str, str], body: bytes) -> Delivery:
    """What a verified delivery is about. Raises DeliveryUnreadable."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise DeliveryUnreadable(
            "the body is no JSON; expected a training as GET /v1/trainings/ID answers"
        ) from None
    found = document if isinstance(document, dict) else {}
    delivery_id, job_id, status = headers.get("webhook-id", ""), found.get("id"), found.get("status")
    readable = isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) and isinstance(status, str)
    if not readable or not _DELIVERY_ID.fullmatch(delivery_id):
        raise DeliveryUnreadable("the body is no training; expected an object with its id and status")
    return Delivery(delivery_id, str(job_id), _shown(str(status)), hashlib.sha256(body).hexdigest())


def runpod_delivery(body: bytes) -> Delivery:
    """What a RunPod delivery is about, which is unsigned and has no id of its own. Raises DeliveryUnreadable.

    Its retries carry the same body, so that the body tells them from news.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise DeliveryUnreadable("the body is no JSON; expected a job as GET /status/ID answers") from None
    found = document if isinstance(document, dict) else {}
    job_id, status = found.get("id"), found.get("status")
    if not (isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) and isinstance(status, str)):
        raise DeliveryUnreadable("the body is no job; expected an object with its id and status")
    digest = hashlib.sha256(body).hexdigest()
    return Delivery(digest, job_id, _shown(status), digest)


def store_delivery(database: Database, provider: str, delivery: Delivery, now: datetime) -> bool:
    """Keep a delivery; False where it had come before (retries and duplicates carry the same id)."""
    with database.begin() as session:
        statement = (
            insertion(session, WebhookDelivery)
            .values(
                provider=provider,
                delivery_id=delivery.delivery_id,
                job_id=delivery.job_id,
                status=delivery.status,
                body_sha256=delivery.body_sha256,
                received_at=now,
            )
            .on_conflict_do_nothing(index_elements=["provider", "delivery_id"])
            .returning(WebhookDelivery.id)
        )
        return session.scalar(statement) is not None


def _shown(status: str) -> str:
    return "".join(sign for sign in status if sign.isprintable())[:_STATUS_CHARS]


def _verify(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    from standardwebhooks import Webhook, WebhookVerificationError

    expected = Webhook(secret)
    try:
        expected.verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError as error:
        raise SignatureRefused(f"the delivery is not signed as expected: {error}") from None
    except ValueError:
        # A signature that is no base64 or has no version, and a body that is no UTF-8, end here.
        raise SignatureRefused("the delivery's signature or body is malformed") from None
