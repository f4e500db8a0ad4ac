"""Observing: running beside another system, reporting everything, and touching nothing outside our own database.

The mode hangs on the database's sessions, so that every operation that would submit, serve or delete meets it where
it acts, whichever face asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_MARK = "observing"


class Observing(Exception):
    """What was asked for would change something, and LORA_OBSERVE is on; nothing was changed."""


def session_marks(observing: bool) -> dict[str, bool]:
    """What a database that observes gives each of its sessions."""
    return {_MARK: observing}


def is_observing(session: Session) -> bool:
    """Whether this session belongs to a project that only observes."""
    return bool(session.info.get(_MARK))


def refuse_while_observing(session: Session, what: str) -> None:
    """Raise Observing where it is on. `what` is the thing not done, as in "training user-50c"."""
    if is_observing(session):
        raise Observing(observing_says(what))


def observing_says(what: str) -> str:
    """The one sentence of a refusal."""
    return f"{what}: LORA_OBSERVE is on, so nothing is submitted, served or deleted. Unset it to let this project act"
