"""Faults waiting to happen: what can be asked for, stored so that they survive a restart, taken one at a time.

What belongs here: the vocabulary and the queue. How a fault is acted out stands where it happens: front.py for HTTP,
the creation of a training for its quirks, webhooks.py for events.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lora_pipeline.simulator.operations import EVENTS, JOB_WEBHOOKS, OPERATIONS
from lora_pipeline.simulator.quirks import AskedFor
from lora_pipeline.simulator.runpod_jobs import JobQuirks
from lora_pipeline.simulator.state import State
from lora_pipeline.simulator.trainings import Quirks

HttpKind = Literal["drop", "answer", "delay", "hang", "cut_body", "malformed_item"]
WebhookKind = Literal["lost", "late", "doubled", "reordered", "forged", "stale"]
SIGNED_ONLY = ("reordered", "stale")
"""Faults that an event has only where there are several of one job, or where it carries a signed time."""
QUIRKS: dict[str, type[AskedFor]] = {"trainings.create": Quirks, "runpod.run": JobQuirks}


class Fault(BaseModel):
    """One fault, to happen at the next `times` fitting occasions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    """A call by its name ("trainings.create"), "any" for every call, or "webhooks.send" or "runpod.webhooks"."""
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
        if self.place not in OPERATIONS | EVENTS | {"any"}:
            places = ", ".join(sorted(OPERATIONS | EVENTS))
            raise ValueError(f"no such place {self.place!r}; expected any or one of {places}")
        is_webhook = self.kind in WebhookKind.__args__  # type: ignore[attr-defined]
        if is_webhook != (self.place in EVENTS) or (self.place == JOB_WEBHOOKS and self.kind in SIGNED_ONLY):
            raise ValueError(f"a fault of kind {self.kind!r} cannot happen at {self.place!r}")
        if self.kind == "quirk":
            if self.place not in QUIRKS:
                raise ValueError(
                    f"a quirk is given where something is created, at {' or '.join(QUIRKS)}, not at {self.place!r}"
                )
            QUIRKS[self.place].parse(self.quirk)
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
        places = (place,) if quirks or place in EVENTS else (place, "any")
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
