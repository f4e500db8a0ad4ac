"""Faults waiting to happen: what can be asked for, stored so that they survive a restart, taken one at a time.

What belongs here: the vocabulary and the queue. How a fault is acted out stands where it happens: front.py for HTTP,
the creation of a training for its quirks, webhooks.py for events.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lora_pipeline.simulator.operations import OPERATIONS, WEBHOOKS
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import Quirks

HttpKind = Literal["drop", "answer", "delay", "hang", "cut_body", "malformed_item"]
WebhookKind = Literal["lost", "late", "doubled", "reordered", "forged", "stale"]


class Fault(BaseModel):
    """One fault, to happen at the next `times` fitting occasions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    """A call by its name ("trainings.create"), "any" for every call, or "webhooks.send"."""
    kind: HttpKind | WebhookKind | Literal["quirk"]
    """drop: the connection closes without an answer · answer: `status` with `body` · delay: `seconds` · hang: no answer
    while the connection stands · cut_body: half of the body · malformed_item: `item` put into a list page · quirk: the
    created training deviates · the rest are for webhooks."""
    moment: Literal["before", "after"] = "before"
    """Whether the request takes effect first ("after") or never does. A delay takes place before or after the effect."""
    times: int = Field(1, ge=1)
    match: str = ""
    """Only for requests whose path contains this."""
    status: int = Field(500, ge=300, le=599)
    body: Literal["problem", "html", "empty"] = "problem"
    retry_after: int | None = None
    """Seconds in the Retry-After header and, for 429, in the body."""
    location: str | None = None
    """Where a redirect points."""
    seconds: float = Field(1.0, ge=0)
    item: Any = Field(default_factory=lambda: {"id": None, "status": 7})
    quirk: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.place not in OPERATIONS | {"any", WEBHOOKS}:
            raise ValueError(
                f"no such place {self.place!r}; expected any, {WEBHOOKS} or one of {sorted(OPERATIONS)}"
            )
        is_webhook = self.kind in WebhookKind.__args__  # type: ignore[attr-defined]
        if is_webhook != (self.place == WEBHOOKS):
            raise ValueError(f"a fault of kind {self.kind!r} cannot happen at {self.place!r}")
        if self.kind == "quirk":
            if self.place != "trainings.create":
                raise ValueError(f"a quirk is given to a training at trainings.create, not at {self.place!r}")
            Quirks.parse(self.quirk)
        return self


class FaultQueue:
    """The faults still to happen, first come first served."""

    def __init__(self, state: State) -> None:
        self._sql = state.sql

    def add(self, fault: Fault) -> int:
        """Queue a fault; returns its number."""
        made = self._sql.execute(
            "INSERT INTO faults (place, remaining, details) VALUES (?, ?, ?)",
            (fault.place, fault.times, fault.model_dump_json()),
        )
        return int(made.lastrowid or 0)

    def take(self, place: str, text: str, *, quirks: bool = False) -> Fault | None:
        """The next fault for this place whose `match` is in the text; counts it down."""
        places = (place,) if quirks or place == WEBHOOKS else (place, "any")
        rows = self._sql.execute("SELECT * FROM faults WHERE remaining > 0 ORDER BY id").fetchall()
        for row in rows:
            if row["place"] not in places:
                continue
            fault = Fault.model_validate_json(row["details"])
            if (fault.kind == "quirk") == quirks and fault.match in text:
                self._sql.execute("UPDATE faults SET remaining = remaining - 1 WHERE id = ?", (row["id"],))
                return fault
        return None

    def waiting(self) -> list[dict[str, Any]]:
        """What has not happened yet."""
        rows = self._sql.execute("SELECT * FROM faults WHERE remaining > 0 ORDER BY id").fetchall()
        return [
            {"id": row["id"], "remaining": row["remaining"]}
            | Fault.model_validate_json(row["details"]).model_dump(exclude_defaults=True)
            for row in rows
        ]

    def clear(self) -> None:
        """Forget every fault."""
        self._sql.execute("DELETE FROM faults")
