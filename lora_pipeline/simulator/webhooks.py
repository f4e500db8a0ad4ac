"""Webhooks: which events a training has coming, how they are signed, and getting any event to its receiver.

At Replicate the body is what GET would answer, logs included; RunPod's events are queued by `runpod_events` and only
delivered here. An event is stored before it is sent and removed after its answer, so that a killed simulator sends it
again: receivers see an event at least once, in no promised order. Only the last event of a training is tried again,
for about a minute. Redirects are not followed. Times here are real seconds, as the receiver checks
`webhook-timestamp` against its own clock.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import sqlite3
import time
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lora_pipeline.simulator import wire
from lora_pipeline.simulator.operations import WEBHOOKS
from lora_pipeline.simulator.settings import SIMULATED_HEADER
from lora_pipeline.simulator.trainings import Training

if TYPE_CHECKING:
    import httpx

    from lora_pipeline.simulator.faults import Fault
    from lora_pipeline.simulator.simulator import Simulator

BATCH = 200
PARALLEL = 16
STALE_S = 3600
JOB_ENDED, JOB_FORGED = "job.ended", "job.forged"
"""Events of RunPod, which signs nothing."""
FOREIGN_SECRET = "whsec_" + base64.b64encode(b"not the account's secret").decode()


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over `id.timestamp.body` with the secret's base64 part."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Postman:
    """Queues the events that have come due and delivers what is queued."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._sql = simulator.state.sql
        self._last_logs: dict[str, tuple[float, int]] = {}

    async def catch_up(self) -> None:
        """Queue every event that is due, then try each delivery whose time has come."""
        self._queue_due()
        while rows := self._waiting(time.time()):
            await self._deliver(rows)

    def _queue_due(self) -> None:
        now = self._simulator.ledger.settle()
        due = "webhook_open = 1 AND (settled = 1 OR (start_sent = 0 AND starts_life <= ?))"
        for training in self._trainings(due, now.life):
            with self._simulator.state.transaction() as sql:
                if training.settled:
                    sql.execute("UPDATE trainings SET webhook_open = 0 WHERE id = ?", (training.id,))
                    self._queue_end(training)
                else:
                    sql.execute("UPDATE trainings SET start_sent = 1 WHERE id = ?", (training.id,))
                    self._queue(training, "start")
        for training in self._trainings(
            "webhook_open = 1 AND start_sent = 1 AND webhook_events LIKE '%logs%'"
        ):
            self._queue_logs(training, now.life)

    def _trainings(self, condition: str, *values: float) -> list[Training]:
        rows = self._sql.execute(f"SELECT * FROM trainings WHERE {condition} ORDER BY seq", values).fetchall()  # noqa: S608
        return [Training.from_row(row) for row in rows]

    def _queue_logs(self, training: Training, life: float) -> None:
        """`logs` whenever there is more, but not more often than the throttle allows."""
        last_time, last_steps = self._last_logs.get(training.id, (0.0, -1))
        steps = training.steps_at(life)
        if (
            steps != last_steps
            and time.monotonic() - last_time >= self._simulator.settings.webhook_throttle_s
        ):
            self._last_logs[training.id] = (time.monotonic(), steps)
            self._queue(training, "logs")

    def _queue_end(self, training: Training) -> None:
        """`output` where there is some, then `completed`."""
        self._last_logs.pop(training.id, None)
        if training.outcome == "succeeded":
            self._queue(training, "output")
        self._queue(training, "completed")

    def _queue(self, training: Training, event: str) -> None:
        """Put an event into the queue, or do with it what a fault asks for."""
        if event not in training.webhook_events:
            return
        simulator = self._simulator
        now = simulator.clock.now()
        body = wire.training_json(training, now, simulator.clock, simulator.settings, with_logs=True)
        webhook_id = "msg_" + secrets.token_urlsafe(20)
        fault = simulator.faults.take(WEBHOOKS, f"{event} {training.id}")
        if fault is None:
            self.put(training.id, str(training.webhook), event, webhook_id, json.dumps(body))
        else:
            simulator.happened[f"{WEBHOOKS} {fault.kind}"] += 1
            self._put_faulty(training, event, webhook_id, body, fault)

    def _put_faulty(
        self, training: Training, event: str, webhook_id: str, body: dict[str, Any], fault: Fault
    ) -> None:
        text = json.dumps(body)
        put = partial(self.put, training.id, str(training.webhook))
        match fault.kind:
            case "lost":
                self.log(webhook_id, training.id, event, 0, "lost")
            case "late":
                put(event, webhook_id, text, delay_s=fault.seconds)
            case "reordered":
                put(event, webhook_id, text, delay_s=fault.seconds, held=True)
            case "doubled":
                put(event, webhook_id, text)
                put(event, webhook_id, text)
            case "stale":
                put(event, webhook_id, text, age_s=STALE_S)
                put(event, webhook_id, text)
            case _:
                put("forged", webhook_id + "x", json.dumps(forged(body)))
                put(event, webhook_id, text)

    def put(
        self,
        identity: str,
        url: str,
        event: str,
        webhook_id: str,
        body: str,
        *,
        delay_s: float = 0.0,
        age_s: float = 0.0,
        held: bool = False,
    ) -> None:
        """Queue one event about a training or a job."""
        self._sql.execute(
            "INSERT INTO outgoing (webhook_id, training_id, event, url, body, next_at, age_s, held) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (webhook_id, identity, event, url, body, time.time() + delay_s, age_s, held),
        )

    def _waiting(self, now: float) -> list[sqlite3.Row]:
        return self._sql.execute(
            "SELECT * FROM outgoing WHERE next_at <= ? ORDER BY id LIMIT ?", (now, BATCH)
        ).fetchall()

    async def _deliver(self, rows: list[sqlite3.Row]) -> None:
        """The events of one training one after the other, those of different trainings side by side."""
        import httpx

        places = asyncio.Semaphore(PARALLEL)
        timeout = self._simulator.settings.webhook_timeout_s
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client:

            async def of_one_training(events: list[sqlite3.Row]) -> None:
                async with places:
                    for row in events:
                        await self._attempt(client, row)

            ordered = sorted(rows, key=lambda row: (row["training_id"], row["id"]))
            groups = [list(events) for _, events in groupby(ordered, key=lambda row: row["training_id"])]
            await asyncio.gather(*(of_one_training(events) for events in groups))

    async def _attempt(self, client: httpx.AsyncClient, row: sqlite3.Row) -> None:
        """One try; afterwards the event is gone, or has the time of its next try."""
        import httpx

        try:
            answer = await client.post(row["url"], content=row["body"].encode(), headers=self._headers(row))
            outcome = str(answer.status_code)
            delivered = answer.status_code == 200 if row["event"] == JOB_ENDED else answer.is_success
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            outcome, delivered = type(error).__name__, False
        attempt = int(row["attempt"]) + 1
        waits = self._waits(str(row["event"]))
        with self._simulator.state.transaction() as sql:
            self.log(row["webhook_id"], row["training_id"], row["event"], attempt, outcome)
            if delivered or attempt > len(waits):
                sql.execute("DELETE FROM outgoing WHERE id = ?", (row["id"],))
            else:
                sql.execute(
                    "UPDATE outgoing SET attempt = ?, next_at = ? WHERE id = ?",
                    (attempt, time.time() + waits[attempt - 1], row["id"]),
                )
            # What was held back so that it comes in the wrong order may go now.
            sql.execute(
                "UPDATE outgoing SET held = 0, next_at = ? WHERE training_id = ? AND held = 1 AND id != ?",
                (time.time(), row["training_id"], row["id"]),
            )

    def _waits(self, event: str) -> tuple[float, ...]:
        """Seconds before each further try: only the event of an end has any."""
        settings = self._simulator.settings
        return {"completed": settings.webhook_retry_s, JOB_ENDED: settings.runpod_webhook_retry_s}.get(
            event, ()
        )

    def _headers(self, row: sqlite3.Row) -> dict[str, str]:
        if row["event"] in (JOB_ENDED, JOB_FORGED):
            return {
                "content-type": "application/json",
                "user-agent": "RunPod (simulated)",
                SIMULATED_HEADER: "true",
            }
        secret = FOREIGN_SECRET if row["event"] == "forged" else self._simulator.webhook_secret
        timestamp = int(time.time() - row["age_s"])
        return {
            "content-type": "application/json",
            "user-agent": "Replicate (simulated)",
            "webhook-id": row["webhook_id"],
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, row["webhook_id"], timestamp, row["body"].encode()),
            SIMULATED_HEADER: "true",
        }

    def log(self, webhook_id: str, training_id: str, event: str, attempt: int, outcome: str) -> None:
        """Note what became of one try."""
        self._sql.execute(
            "INSERT INTO deliveries (webhook_id, training_id, event, attempt, sent_at, outcome) VALUES (?, ?, ?, ?, ?, ?)",
            (webhook_id, training_id, event, attempt, time.time(), outcome),
        )

    def deliveries(self, limit: int) -> list[dict[str, Any]]:
        """What was tried, newest first."""
        rows = self._sql.execute("SELECT * FROM deliveries ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [dict(row) for row in rows]

    def waiting_count(self) -> int:
        """Events that are queued: late, held back, or to be tried again."""
        return int(self._sql.execute("SELECT COUNT(*) FROM outgoing").fetchone()[0])


def forged(body: dict[str, Any]) -> dict[str, Any]:
    """What somebody without the secret would like to be believed: success, with a version of their own."""
    output = {
        "version": f"mallory/model:{'0' * 64}",
        "weights": "https://mallory.invalid/xezq/a/trained_model.tar",
    }
    return body | {"status": "succeeded", "output": output, "error": None}
