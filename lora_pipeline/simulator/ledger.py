"""The ledger of created trainings: every one was paid for, so none is ever removed.

What belongs here: rows of `trainings` and what follows from their end (a version of the destination model). Each
read first settles what has ended since the last one, so that no timer is needed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lora_pipeline.simulator.clock import Instant, SimulatedClock
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import NEVER, Quirks, Training, new_id, new_weights_key, plan

PAGE_LENGTH = 100

INSERT = """
INSERT INTO trainings (id, trainer, trainer_version, destination, input, base_url, webhook, webhook_events, webhook_open,
    created_shown, created_life, starts_life, ends_life, setup_s, upload_s, steps, outcome, error, archive,
    version_hash, weights_key, quirks)
VALUES (:id, :trainer, :trainer_version, :destination, :input, :base_url, :webhook, :webhook_events, :webhook IS NOT NULL,
    :created_shown, :created_life, :starts_life, :ends_life, :setup_s, :upload_s, :steps, :outcome, :error, :archive,
    :version_hash, :weights_key, :quirks)
"""


@dataclass(frozen=True)
class Order:
    """A request for a training that has passed every check."""

    trainer: str
    trainer_version: str
    destination: str
    input: dict[str, Any]
    base_url: str
    webhook: str | None = None
    webhook_events: tuple[str, ...] = ()


class Ledger:
    """Creates, finds and ends trainings."""

    def __init__(self, state: State, clock: SimulatedClock) -> None:
        self._state = state
        self._clock = clock

    def create(self, order: Order, settings: SimulatorSettings, quirks: Quirks) -> Training:
        """Take an order: from here on it is paid."""
        identity = self.create_many([order], settings, quirks)[0]
        found = self.find(identity)
        assert found is not None
        return found

    def create_many(
        self,
        orders: Sequence[Order],
        settings: SimulatorSettings,
        quirks: Quirks,
        *,
        fetch: bool | None = None,
    ) -> list[str]:
        """Take many orders in one transaction; returns their ids in the same order."""
        now = self._clock.now()
        fetching = settings.fetch_archives if fetch is None else fetch
        rows = [self._row(order, settings, quirks, now, fetching) for order in orders]
        with self._state.transaction() as sql:
            sql.executemany(INSERT, rows)
        return [row["id"] for row in rows]

    def _row(
        self, order: Order, settings: SimulatorSettings, quirks: Quirks, now: Instant, fetching: bool
    ) -> dict[str, Any]:
        identity = new_id()
        times = plan(settings, identity, order.input, now.life)
        starts = NEVER if quirks.stuck_in == "starting" else times.starts_life
        return {
            **order.__dict__,
            "id": identity,
            "input": json.dumps(order.input),
            "webhook_events": ",".join(order.webhook_events),
            "created_shown": now.shown,
            "created_life": now.life,
            "starts_life": starts,
            "ends_life": NEVER if quirks.stuck_in else times.ends_life,
            "setup_s": times.setup_s,
            "upload_s": times.upload_s,
            "steps": times.steps,
            "outcome": "failed" if quirks.error else "succeeded",
            "error": quirks.error,
            "archive": "pending" if fetching else "skipped",
            "version_hash": secrets.token_hex(32),
            "weights_key": new_weights_key(),
            "quirks": quirks.as_json(),
        }

    def settle(self) -> Instant:
        """Carry out what has come due: trainings that ended, and the versions they leave. Returns the time used."""
        now = self._clock.now()
        sql = self._state.sql
        due = "settled = 0 AND archive != 'pending' AND ends_life <= ?"
        rows = sql.execute(
            f"SELECT id, destination, version_hash, outcome, quirks, ends_life FROM trainings WHERE {due} ORDER BY ends_life, seq",  # noqa: S608
            (now.life,),
        ).fetchall()
        if not rows:
            return now
        made = [
            (row["destination"], row["version_hash"], self._clock.shown_of(row["ends_life"]), row["id"])
            for row in rows
            if row["outcome"] == "succeeded" and "status" not in json.loads(row["quirks"])
        ]
        with self._state.transaction():
            sql.executemany(
                "INSERT INTO versions (model, hash, created_shown, training_id) VALUES (?, ?, ?, ?)", made
            )
            sql.execute(f"UPDATE trainings SET settled = 1 WHERE {due}", (now.life,))  # noqa: S608
        return now

    def find(self, identity: str) -> Training | None:
        """One training by its id, whether or not the provider still admits to it."""
        row = self._state.sql.execute("SELECT * FROM trainings WHERE id = ?", (identity,)).fetchone()
        return Training.from_row(row) if row else None

    def find_by_weights(self, key: str) -> Training | None:
        """The training behind the opaque part of a weights URL."""
        row = self._state.sql.execute("SELECT * FROM trainings WHERE weights_key = ?", (key,)).fetchone()
        return Training.from_row(row) if row else None

    def page(self, before: int | None, after: int | None, visible_until: float) -> list[Training]:
        """Up to one page and one more, newest first: older than `before`, or just newer than `after`."""
        lower, upper = (after or 0), (before or 2**62)
        order = "ASC" if after is not None else "DESC"
        rows = self._state.sql.execute(
            f"SELECT * FROM trainings WHERE seq > ? AND seq < ? AND created_shown <= ? ORDER BY seq {order} LIMIT ?",  # noqa: S608
            (lower, upper, visible_until, PAGE_LENGTH + 1),
        ).fetchall()
        found = [Training.from_row(row) for row in rows]
        return found[::-1] if after is not None else found

    def waiting_for_archive(self, now: Instant, limit: int = 50) -> list[Training]:
        """Trainings that have started and whose ZIP nobody has looked at yet."""
        rows = self._state.sql.execute(
            "SELECT * FROM trainings WHERE settled = 0 AND archive = 'pending' AND starts_life <= ? "
            "ORDER BY starts_life LIMIT ?",
            (now.life, limit),
        ).fetchall()
        return [Training.from_row(row) for row in rows]

    def archive_seen(self, identity: str, images: int, captions: dict[str, str], error: str | None) -> None:
        """The trainer has opened the ZIP: go on, or fail within a few seconds."""
        life = self._clock.now().life
        self._state.sql.execute(
            "UPDATE trainings SET archive = :archive, images = :images, captions = :captions, "
            "ends_life = CASE WHEN :error IS NULL THEN MAX(ends_life, :life) ELSE :life END, "
            "outcome = CASE WHEN :error IS NULL THEN outcome ELSE 'failed' END, "
            "error = COALESCE(:error, error) WHERE id = :id AND settled = 0",
            {
                "archive": "refused" if error else "seen",
                "images": images,
                "captions": json.dumps(captions),
                "error": error,
                "life": life,
                "id": identity,
            },
        )

    def end(self, identity: str, outcome: str, error: str | None = None) -> bool:
        """End an open training now; False where it had ended already (then nothing changes)."""
        life = self._clock.now().life
        changed = self._state.sql.execute(
            "UPDATE trainings SET outcome = ?, error = ?, ends_life = ?, starts_life = MIN(starts_life, ?), "
            "archive = CASE archive WHEN 'pending' THEN 'skipped' ELSE archive END "
            "WHERE id = ? AND settled = 0",
            (outcome, error, life, life if outcome in ("succeeded", "failed") else NEVER, identity),
        )
        self.settle()
        return changed.rowcount == 1

    def end_all_open(self) -> int:
        """Let every open training that can succeed succeed now."""
        life = self._clock.now().life
        changed = self._state.sql.execute(
            "UPDATE trainings SET ends_life = ?, starts_life = MIN(starts_life, ?), "
            "archive = CASE archive WHEN 'pending' THEN 'skipped' ELSE archive END "
            "WHERE settled = 0 AND ends_life < ?",
            (life, life, NEVER),
        )
        self.settle()
        return changed.rowcount

    def set_quirks(self, identity: str, quirks: Quirks) -> None:
        """Make an existing training deviate."""
        self._state.sql.execute("UPDATE trainings SET quirks = ? WHERE id = ?", (quirks.as_json(), identity))
        if quirks.error:
            self._state.sql.execute(
                "UPDATE trainings SET outcome = 'failed', error = ? WHERE id = ? AND settled = 0",
                (quirks.error, identity),
            )

    def all(self) -> list[Training]:
        """Every training ever created, oldest first."""
        return [
            Training.from_row(row)
            for row in self._state.sql.execute("SELECT * FROM trainings ORDER BY seq").fetchall()
        ]
