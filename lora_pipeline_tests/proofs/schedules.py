"""What a world is set to, and one line that says a schedule so that it can be run again.

python -m lora_pipeline_tests.proofs.replay '<line>'
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path as FilePath
from typing import Any

from lora_pipeline.providers.protocol import JobState
from lora_pipeline_tests.proofs.account import Answer, Conditions, Delivery, Leaves
from lora_pipeline_tests.proofs.steps import SteppedDatabase, Steps
from lora_pipeline_tests.proofs.world import (
    ASLEEP,
    AWAY,
    CALM,
    HASTY,
    OURS,
    QUIET,
    STEADY,
    Fate,
    Operations,
    Path,
    World,
    add_packed,
)

CADENCES = {"hasty": HASTY, "calm": CALM, "steady": STEADY, "asleep": ASLEEP, "away": AWAY}
_FATE = re.compile(r"(?:k(\d+))?(?:b(\d+))?(?:p(\d+)@([\d.]+))?(?:h(\d+))?")


_USUAL = Conditions()


@dataclass(frozen=True)
class Setting:
    """Everything that two runs of one schedule have to have in common."""

    conditions: Conditions = _USUAL
    cadence: str = "calm"
    resubmit_after: float | None = None
    """Seconds; None leaves unknown outcomes to a person, as the default does."""
    store_fails: int = 0
    """So many of the first writes to the object store fail."""

    def line(self, path: Path) -> str:
        """The setting and a schedule, in one line."""
        usual = asdict(_USUAL)
        given = {name: value for name, value in asdict(self.conditions).items() if value != usual[name]}
        own = {
            "cadence": self.cadence,
            "resubmit_after": self.resubmit_after,
            "store_fails": self.store_fails,
        }
        return json.dumps({**given, **{k: v for k, v in own.items() if v}, "path": spelled(path)})

    @property
    def name(self) -> str:
        """For the ids of tests."""
        shown = {name: value for name, value in json.loads(self.line(())).items() if name != "path"}
        words = [f"{name}={','.join(map(str, v)) if isinstance(v, list) else v}" for name, v in shown.items()]
        return " ".join(words)


def read_line(line: str) -> tuple[Setting, Path]:
    """The inverse of `Setting.line`."""
    given: dict[str, Any] = json.loads(line)
    path = parsed(given.pop("path"))
    kinds: Mapping[str, Any] = {
        "answers": Answer,
        "deliveries": Delivery,
        "uploads": bool,
        "reads": Answer,
        "looks": bool,
    }
    values: dict[str, Any] = {
        name: tuple(kinds[name](item) for item in given[name]) if name in kinds else given[name]
        for name in (one.name for one in fields(Conditions))
        if name in given
    }
    if "outcome" in values:
        values["outcome"] = JobState(values["outcome"])
    if "leaves" in values:
        values["leaves"] = Leaves(values["leaves"])
    own = {name: given[name] for name in ("cadence", "resubmit_after", "store_fails") if name in given}
    return Setting(Conditions(**values), **own), path


def spelled(path: Path) -> str:
    """`.` for a quiet tick, `k3` killed after lasting effect 3, `b7` killed at boundary 7, `p5@400` paused,
    `h2` webhooks heard."""
    words = []
    for fate in path:
        word = f"k{fate.killed}" if fate.killed is not None else ""
        word += f"b{fate.killed_before}" if fate.killed_before is not None else ""
        word += f"p{fate.paused[0]}@{fate.paused[1]:g}" if fate.paused is not None else ""
        word += f"h{fate.heard}" if fate.heard is not None else ""
        words.append(word or ".")
    return " ".join(words)


def parsed(text: str) -> Path:
    """The inverse of `spelled`."""
    path = []
    for word in text.split():
        match = _FATE.fullmatch(word)
        if word == ".":
            path.append(QUIET)
        elif match is None:
            raise ValueError(f"no fate of a tick: {word!r}; expected ., k3, b7, p5@400 or h2")
        else:
            killed, before, at, seconds, heard = match.groups()
            path.append(
                Fate(
                    killed=int(killed) if killed else None,
                    killed_before=int(before) if before else None,
                    paused=(int(at), float(seconds)) if at else None,
                    heard=int(heard) if heard else None,
                )
            )
    return tuple(path)


def memory_database(template: FilePath) -> tuple[SteppedDatabase, bytes]:
    """A SQLite database in memory, and the migrated, empty state to put into it, which takes microseconds."""
    # The two bytes say that the file is in WAL mode, which a database in memory cannot be.
    content = template.read_bytes()
    return SteppedDatabase("sqlite:///:memory:", Steps()), content[:18] + b"\1\1" + content[20:]


def memory_of(database: SteppedDatabase) -> sqlite3.Connection:
    """The one connection that is the database in memory."""
    connection = database.engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def world_of(setting: Setting, database: SteppedDatabase, operations: Operations = OURS) -> World:
    """A world with one packed run."""
    resubmit = None if setting.resubmit_after is None else timedelta(seconds=setting.resubmit_after)
    world = World(
        database,
        database.steps,
        setting.conditions,
        operations,
        cadence=CADENCES[setting.cadence],
        resubmit_after=resubmit,
    )
    add_packed(world)
    world.store.unavailable = setting.store_fails
    return world
