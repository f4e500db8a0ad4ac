"""Step boundaries: where a process can die, another one can come between, and time can pass.

The database, the provider and the object store of a proof say when they have done something; what happens then is
decided here. Nothing of the code under test is replaced for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database


class Crash(BaseException):
    """The process is gone. No `except Exception` survives it, and nothing is done after it: see `Steps.dead`."""


@dataclass
class Steps:
    """Counts the boundaries a process reaches, and acts at them."""

    lasting: int = 0
    """Effects reached that outlive a crash: commits, what the provider did, objects written."""
    all: int = 0
    """Every boundary outside a transaction, those before an effect and those after a mere question included."""
    dead: bool = False
    crash_at: int | None = None
    """The lasting effect (counted from 0) after which the process dies."""
    crash_before: int | None = None
    """The boundary (counted over all from 0) at which the process dies with the next effect undone."""
    on_lasting: Callable[[], None] | None = None
    """Called after each lasting effect."""
    pause_at: int | None = None
    """The boundary (counted over all from 0) at which `on_pause` runs: something else comes between."""
    on_pause: Callable[[], None] | None = None
    trace: list[str] = field(default_factory=list)
    _in_transaction: bool = False
    _paused: bool = False
    _thread: int = field(default_factory=threading.get_ident)

    def start_over(self) -> None:
        """A new process: alive, nothing counted, nothing planned."""
        self.lasting = self.all = 0
        self.dead = self._in_transaction = self._paused = False
        self.crash_at = self.crash_before = self.pause_at = None
        self.on_pause = None
        self.trace.clear()

    def reach(self, what: str) -> None:
        """A boundary: before something is done, or after something that leaves no trace."""
        self.still_alive()
        assert not self._in_transaction, f"{what} while a database transaction is open"
        # What runs beside this thread only asks: it leaves nothing, and its order is not repeatable.
        if self._paused or threading.get_ident() != self._thread:
            return
        self.trace.append(what)
        self.all += 1
        if self.crash_before == self.all - 1:
            self._die()
        if self.pause_at == self.all - 1 and self.on_pause is not None:
            with self.elsewhere():
                self.on_pause()

    def done(self, what: str) -> None:
        """A boundary right after an effect that outlives the process."""
        self.still_alive()
        if not self._paused:
            self.lasting += 1
            if self.on_lasting is not None:
                self.on_lasting()
            if self.crash_at == self.lasting - 1:
                self._die()
        self.reach(f"after {what}")

    def reach_commit(self) -> None:
        """The boundary inside a transaction: everything is written, nothing is committed."""
        self.still_alive()
        if self._paused:
            return
        self.trace.append("before a commit")
        self.all += 1
        if self.crash_before == self.all - 1:
            self._die()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The inside of a writing transaction, where nobody else can come between."""
        self.still_alive()
        self._in_transaction = True
        try:
            yield
            self.still_alive()
        finally:
            self._in_transaction = False

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What another process does: its boundaries are not this one's."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def still_alive(self) -> None:
        """Raises Crash in a process that has been killed."""
        # A dying process runs `finally` blocks that a killed one does not: they must not change anything.
        if self.dead:
            raise Crash

    def _die(self) -> None:
        self.dead = True
        raise Crash


class SteppedDatabase(Database):
    """A database whose writing transactions are step boundaries."""

    def __init__(self, url: str, steps: Steps) -> None:
        super().__init__(url)
        self.steps = steps

    @contextmanager
    def begin(self) -> Iterator[Session]:
        self.steps.reach("before a transaction")
        with self.steps.transaction(), super().begin() as session:
            yield session
            session.flush()
            self.steps.reach_commit()
        self.steps.done("a commit")

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.steps.still_alive()
        with super().read() as session:
            yield session
