"""Every schedule of crashes, without running the same thing twice.

A process that is killed leaves what it has committed, what the provider has done and what is stored; all else is
forgotten. So the states that a crash can leave are exactly the states after each of these lasting effects, and the one
before the first (a crash before an effect leaves the state after the one before). They are remembered while a tick runs, and each becomes the
start of another process. States that are equal are explored once; the schedules leading through them are counted,
not run. `test_crashes` kills at every boundary, inside transactions too, with a real exception, and finds no state
that is not among these.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field, replace

from lora_pipeline_tests.proofs.account import Account
from lora_pipeline_tests.proofs.invariants import STATES, Course, broken_rules, unfinished
from lora_pipeline_tests.proofs.schedules import memory_of
from lora_pipeline_tests.proofs.world import MAX_TICKS, QUIET, Fate, Memory, Path, World

_DECIDING = (
    "activations",
    "artifact_locations",
    "artifacts",
    "audit_log",
    "controls",
    "lora_weights",
    "model_versions",
    "outbox",
    "review_items",
    "training_runs",
    "user_models",
    "version_aliases",
    "webhook_deliveries",
)
_DECIDES_NOTHING = {
    "updated_at",
    "changed_at",
    "created_at",
    "state_changed_at",
    "last_progress_at",
    "lease_token",
    "payload",
    "at",
    "received_at",
    "delivery_id",
}
"""The tables that a training's life writes, and their columns that decide nothing: states that differ in these alone
go on alike."""
_RANDOM = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Place:
    """One state of the world between two ticks."""

    key: str
    database: bytes = field(repr=False)
    memory: Memory = field(repr=False)
    path: Path


@dataclass
class Explored:
    """What came out."""

    schedules: int = 0
    """Different sequences of ticks, crashes and pauses, from the start to the rest."""
    ticks: int = 0
    """Ticks really run."""
    states: int = 0
    wrong: dict[str, Path] = field(default_factory=dict)
    """Each thing that went wrong, with the shortest schedule that shows it."""


@dataclass
class _Node:
    after: str | None = None
    """The state after an undisturbed tick; None where nothing can change any more."""
    others: list[tuple[str, int]] = field(default_factory=list)
    """The states after disturbed ticks, and how many disturbances each took."""


class Explorer:
    """Explores one world (an in-memory SQLite database) under all schedules of at most so many disturbances.

    A disturbance is a kill after any lasting effect or, where `pauses` are given, a sleep of so many seconds at
    any boundary of the ticks before `pause_until`, while another process ticks, or, with `webhooks`, webhooks about
    every training at any boundary. `until` ends the exploration at the first state with this problem.
    """

    def __init__(
        self,
        world: World,
        *,
        disturbances: int,
        pauses: tuple[float, ...] = (),
        pause_until: int = MAX_TICKS,
        webhooks: bool = False,
        may_pay_twice: bool = False,
        until: str | None = None,
    ) -> None:
        self._until, self._pause_until = until, pause_until
        self._world, self._disturbances, self._pauses = world, disturbances, pauses
        self._may_pay_twice, self._webhooks = may_pay_twice, webhooks
        self._sqlite = memory_of(world.database)
        self._questions = _questions(self._sqlite)
        self._nodes: dict[str, _Node] = {}
        self._checked: set[str] = set()
        self._found = Explored()

    def explore(self) -> Explored:
        """Run it. The world is left in some state of the exploration."""
        start = self.place(())
        levels: list[dict[str, Place]] = [{} for _ in range(self._disturbances + 3)]
        levels[0] = {start.key: start}
        for disturbances in range(self._disturbances + 1):
            waiting = list(levels[disturbances].values())
            while waiting:
                place = waiting.pop()
                if place.key in self._nodes:
                    continue
                if self._until in self._found.wrong:
                    return self._found
                after, others = self._expand(place, disturbances)
                waiting += [after] if after else []
                for other, cost in others:
                    if other.key not in self._nodes:
                        levels[disturbances + cost].setdefault(other.key, other)
            levels[disturbances].clear()
        self._found.states = len(self._nodes)
        self._found.schedules = self._count(start.key)
        return self._found

    def knows(self, place: Place) -> bool:
        """Whether this state was among the explored ones."""
        return place.key in self._nodes

    def _expand(self, place: Place, disturbances: int) -> tuple[Place | None, list[tuple[Place, int]]]:
        """All ticks from this state: where an undisturbed one leads, and where the others do (and how many
        disturbances each of these took)."""
        self.restore(place)
        node = self._nodes[place.key] = _Node()
        if self._world.settled():
            self._note(unfinished(self._world), place.path)
            return None, []
        if len(place.path) >= MAX_TICKS:
            self._note([f"still not at rest after {MAX_TICKS} ticks: {self._world.states()}"], place.path)
            return None, []
        # A process that dies before it has done anything leaves only time that has passed.
        idle = self._waited((*place.path, Fate(killed_before=0)))
        after, crashed = self._run(place, QUIET)
        boundaries = self._world.steps.all
        node.after = after.key
        others = [(one, 1) for one in (idle, *crashed)]
        if disturbances < self._disturbances and len(place.path) < self._pause_until:
            for at in range(boundaries):
                between = [Fate(paused=(at, seconds)) for seconds in self._pauses]
                between += [Fate(heard=at)] if self._webhooks else []
                for fate in between:
                    self.restore(place)
                    changed, crashed = self._run(place, fate)
                    others += [(changed, 1), *((one, 2) for one in crashed)]
        node.others = [(one.key, cost) for one, cost in others]
        return after, others

    def _run(self, place: Place, fate: Fate) -> tuple[Place, list[Place]]:
        """One tick: the state after it, and every state that a crash in it leaves."""
        world = self._world
        course = Course()
        course.step(self._states())
        crashed: list[Place] = []

        def crash_here() -> None:
            path = (*place.path, replace(fate, killed=world.steps.lasting - 1))
            self._note(course.step(self._states()), path)
            crashed.append(self._waited(path))

        world.steps.on_lasting = crash_here
        try:
            world.disturbed_tick(fate)
        finally:
            world.steps.on_lasting = None
        self._found.ticks += 1
        path = (*place.path, fate)
        self._note(course.step(self._states()), path)
        return self._waited(path), crashed

    def _waited(self, path: Path) -> Place:
        """The state in which the next process starts; what must hold now is checked where that is new."""
        memory = self._world.remember()
        self._world.wait()
        place = self.place(path)
        self._world.recall(memory)
        if place.key not in self._checked:
            self._checked.add(place.key)
            self._note(broken_rules(self._world, may_pay_twice=self._may_pay_twice), path)
        return place

    def _states(self) -> list[tuple[int, str, str | None]]:
        return self._sqlite.execute(STATES).fetchall()

    def place(self, path: Path) -> Place:
        """The present state, reached by this path."""
        return Place(self._key(), self._sqlite.serialize(), self._world.remember(), path)

    def restore(self, place: Place) -> None:
        """Put the world back into a state."""
        self._sqlite.deserialize(place.database)
        self._world.recall(place.memory)

    def _key(self) -> str:
        """Equal for states from which everything goes on alike."""
        memory = self._world.remember()
        now = memory.moment.replace(tzinfo=None).isoformat(" ", "microseconds")
        cursor = memory.dagster.cursor or ""
        parts = [
            [_what_matters(row, now, cursor) for row in self._sqlite.execute(question)]
            for question in self._questions
        ]
        account = memory.account
        planned = _planned(self._world, account)
        outside = (memory.moment, memory.ticks, account.trainings, account.uploaded, planned)
        kept = (sorted(memory.content), sorted(set(memory.dagster.events)))
        text = f"{parts}{outside}{kept}{self._world.store.unavailable}"
        return hashlib.sha256(_RANDOM.sub("*", text).encode()).hexdigest()

    def _note(self, wrong: list[str], path: Path) -> None:
        for problem in wrong:
            self._found.wrong.setdefault(problem, path)

    def _count(self, start: str) -> int:
        """How many schedules there are with at most this many disturbances: paths through the states."""
        reached: list[Counter[str]] = [Counter() for _ in range(self._disturbances + 3)]
        reached[0][start] = 1
        total = 0
        for disturbances in range(self._disturbances + 1):
            level = reached[disturbances]
            while level:
                key, number = level.popitem()
                node = self._nodes[key]
                if node.after is None:
                    total += number
                    continue
                level[node.after] += number
                for other, cost in node.others:
                    reached[disturbances + cost][other] += number
        return total


def _questions(connection: sqlite3.Connection) -> list[str]:
    """One SELECT a table, with the columns that matter."""
    questions = []
    for name in _DECIDING:
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')]
        wanted = ", ".join(_column(column) for column in columns if column not in _DECIDES_NOTHING)
        questions.append(f'SELECT {wanted} FROM "{name}"')
    return questions


def _column(name: str) -> str:
    if name == "last_polled_at":
        # Whether it was looked for lately decides how long what is held is looked for.
        return "CASE WHEN state = 'held' THEN last_polled_at END"
    if name == "handled_at":
        return "handled_at IS NULL"
    # Marked, so that a moment that has passed can be told from one that is waited for.
    return f"'until ' || {name}" if name in ("lease_until", "not_before") else f'"{name}"'


def _what_matters(row: tuple[object, ...], now: str, cursor: str) -> tuple[object, ...]:
    """A lease that has run out is none, a claim counts only while Dagster holds its token."""
    return tuple(_value(value, now, cursor) for value in row)


def _value(value: object, now: str, cursor: str) -> object:
    if not isinstance(value, str):
        return value
    if value.startswith("until "):
        return None if value[6:] <= now else value
    if value.startswith('{"token"'):
        until = str(json.loads(value)["until"]).partition("+")[0].replace("T", " ")
        return "{}" if until <= now else value
    if len(value) == 32 and _RANDOM.fullmatch(value):
        return "held by Dagster" if value == cursor else None
    return value


def _planned(world: World, account: Account) -> tuple[int, ...]:
    """How much of the planned behaviour is used up."""
    plan = world.conditions
    return (
        min(account.asked, len(plan.answers)),
        min(account.delivered, len(plan.deliveries)),
        min(account.reads, len(plan.reads)),
        min(account.looks, len(plan.looks)),
        account.pages_failed,
    )
