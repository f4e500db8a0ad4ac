"""Sending what is owed: signed the standard-webhooks way, and tried again for about three days.

A row is claimed before it is sent, by moving its next attempt on, so that overlapping ticks send nothing twice
and a killed one gives way. A receiver still has to expect a repetition (`webhook-id` stays the same): an answer
can be lost after it was given.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
from sqlalchemy import delete, or_, select, update

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Callback
from lora_pipeline.settings import Settings, SettingsError

log = logging.getLogger(__name__)

DELAYS = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""After the first, second, … attempt, as the standard for webhooks recommends."""
TOO_OLD = timedelta(days=3)
"""What was never tried by then is not sent any more: nobody waits for it (callbacks were switched on since)."""
KEPT = timedelta(days=30)
"""How long what was taken, or given up, can still be looked at."""
TIMEOUT_S = 15.0
BUDGET_S = 20.0
"""No further callbacks are begun after this, so that a tick ends within its minute however slow the application is:
what is claimed and not sent would count as an attempt."""
_CLAIM = timedelta(minutes=2)
_AT_ONCE = 4
_GONE = 410


class CallbacksFail(Exception):
    """The application took none of the callbacks that were due; the message says why."""


@dataclass(frozen=True)
class Receiver:
    """Where callbacks go and what they are signed with."""

    url: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True)
class CallbackRound:
    """What one round did."""

    delivered: int = 0
    failed: tuple[str, ...] = ()
    """Kind, attempt and reason of each that will be tried again."""
    given_up: tuple[str, ...] = ()

    @property
    def tried(self) -> int:
        return self.delivered + len(self.failed) + len(self.given_up)

    def __add__(self, more: CallbackRound) -> CallbackRound:
        return CallbackRound(
            self.delivered + more.delivered, self.failed + more.failed, self.given_up + more.given_up
        )


@dataclass(frozen=True)
class _Due:
    row_id: int
    event_id: str
    kind: str
    attempt: int
    body: str = field(repr=False)


def receiver_of(settings: Settings) -> Receiver | None:
    """The receiver that the settings name; None without one, and while observing. Raises SettingsError where nothing could be signed."""
    if settings.callback_url is None or settings.observe:
        return None
    if settings.callback_secret is None:
        raise SettingsError(
            "LORA_CALLBACK_URL is set and LORA_CALLBACK_SECRET is not. Make one: "
            "python -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
        )
    return Receiver(settings.callback_url, settings.callback_secret.get_secret_value())


def after_attempt(attempt: int, now: datetime) -> datetime | None:
    """When to try again after the attempt of this number (from 1); None where it was the last. Pure."""
    return now + DELAYS[attempt - 1] if attempt <= len(DELAYS) else None


def send_callbacks(connections: Connections, limit: int = 1000) -> CallbackRound:
    """Send what is due. Raises CallbacksFail where everything was tried in vain, so that a tick is seen to fail."""
    receiver = receiver_of(connections.settings)
    if receiver is None:
        return CallbackRound()
    done = send_due(connections.database, receiver, connections.now, limit)
    if done.failed and not done.delivered:
        raise CallbacksFail("; ".join(done.failed[:5]))
    return done


def send_due(
    database: Database,
    receiver: Receiver,
    clock: Callable[[], datetime],
    limit: int,
    budget: float = BUDGET_S,
) -> CallbackRound:
    """Claim, send and write down, a few at a time. A callback in trouble holds up no other."""
    _tidy(database, clock())
    until = time.monotonic() + budget
    done = CallbackRound()
    with (
        httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
        ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="callback") as pool,
    ):
        while done.tried < limit:
            due = _claim(database, clock(), min(_AT_ONCE, limit - done.tried))
            if not due:
                break
            troubles = list(pool.map(lambda one: _send(client, receiver, one, clock()), due))
            done += _written(database, due, troubles, clock())
            if time.monotonic() > until:
                break
    return done


def _written(
    database: Database, due: Sequence[_Due], troubles: Sequence[_Trouble | None], now: datetime
) -> CallbackRound:
    delivered = 0
    failed: list[str] = []
    given_up: list[str] = []
    for one, trouble in zip(due, troubles, strict=True):
        again = None if trouble is None or trouble.final else after_attempt(one.attempt, now)
        _write(database, one, trouble, again, now)
        if trouble is None:
            delivered += 1
            continue
        line = f"{one.kind} {one.event_id}, attempt {one.attempt}: {trouble.reason}"
        log.warning("callback not taken: %s", line)
        (failed if again else given_up).append(line)
    return CallbackRound(delivered, tuple(failed), tuple(given_up))


def send_again(database: Database, event_id: str, now: datetime) -> bool:
    """Make a callback due now, also one that was given up or delivered. False where there is none."""
    with database.begin() as session:
        row = session.scalars(select(Callback).where(Callback.event_id == event_id)).one_or_none()
        if row is None:
            return False
        row.next_attempt_at = now
        row.attempts, row.delivered_at, row.given_up_at = 0, None, None
        return True


@dataclass(frozen=True)
class _Trouble:
    reason: str
    final: bool = False


_OWED = Callback.delivered_at.is_(None), Callback.given_up_at.is_(None)


def _tidy(database: Database, now: datetime) -> None:
    """Forget what is long over, and give up what nobody waits for any more."""
    with database.begin() as session:
        over = or_(Callback.delivered_at < now - KEPT, Callback.given_up_at < now - KEPT)
        session.execute(delete(Callback).where(over))
        session.execute(
            update(Callback)
            .where(*_OWED, Callback.attempts == 0, Callback.created_at < now - TOO_OLD)
            .values(given_up_at=now, last_error="it was too old when callbacks could be sent")
        )


def _claim(database: Database, now: datetime, limit: int) -> list[_Due]:
    with database.begin() as session:
        rows = session.scalars(
            select(Callback)
            .where(*_OWED, Callback.next_attempt_at <= now)
            .order_by(Callback.next_attempt_at, Callback.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            row.attempts += 1
            row.next_attempt_at = now + _CLAIM
        return [_due(row) for row in rows]


def _due(row: Callback) -> _Due:
    body = {"type": row.kind, "timestamp": row.created_at.isoformat(), "data": row.payload}
    # The same bytes on each attempt.
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _Due(row.id, row.event_id, row.kind, row.attempts, text)


def _send(client: httpx.Client, receiver: Receiver, one: _Due, now: datetime) -> _Trouble | None:
    from standardwebhooks import Webhook

    headers = {
        "content-type": "application/json",
        "webhook-id": one.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(receiver.secret).sign(one.event_id, now, one.body),
    }
    try:
        # The answer's body says nothing that is needed, and may have no end.
        with client.stream("POST", receiver.url, content=one.body.encode(), headers=headers) as answer:
            if answer.is_success:
                return None
            return _Trouble(f"answered {answer.status_code}", final=answer.status_code == _GONE)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The error's text may name the address, which may hold a secret.
        return _Trouble(f"no answer ({type(error).__name__})")


def _write(
    database: Database, one: _Due, trouble: _Trouble | None, again: datetime | None, now: datetime
) -> None:
    with database.begin() as session:
        row = session.get(Callback, one.row_id)
        if row is None:
            return  # its model was erased meanwhile
        if trouble is None:
            row.delivered_at, row.last_error = now, None
            return
        row.last_error = trouble.reason
        if again is None:
            row.given_up_at = now
        else:
            row.next_attempt_at = again
