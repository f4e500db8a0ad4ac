"""Values that no database keeps: what foreign JSON and foreign rows may hold."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

REFUSED_VALUES = (DataError, IntegrityError, UnicodeEncodeError, OverflowError)
"""What writing a value ends in that the database, or its driver, does not take."""


def unstorable(value: Any) -> str | None:
    """What keeps a JSON value out of a database, or None."""
    pending: list[Any] = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            pending += one
        elif isinstance(one, str) and not _is_storable(one):
            return f"{one[:40]!r} has a character that no database keeps"
        elif isinstance(one, float) and not math.isfinite(one):
            return "a number too large to keep"
    return None


def _is_storable(text: str) -> bool:
    return "\0" not in text and (text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text))
