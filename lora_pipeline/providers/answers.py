"""One provider's answer over HTTP, and what any JSON in it can be trusted to be. Pure: nothing is sent here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_RETRY_AFTER_S = 10.0
MAX_RETRY_AFTER_S = 300.0
"""A provider that asks for more is asked again after this: a mistyped hour must not stall every submission."""
_RESETS_IN = re.compile(r"resets in ~?(\d{1,9}(?:\.\d{1,9})?)\s*s")


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name."""
    body: bytes | None = field(repr=False)
    """None where the connection broke before the end."""

    def document(self) -> dict[str, Any] | None:
        """The JSON object in the body; None for anything else (HTML of a proxy, half an answer)."""
        try:
            found = json.loads(self.body or b"")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def succeeded(answer: Answer) -> bool:
    """Whether the status is 2xx."""
    return 200 <= answer.status < 300


def retry_after(answer: Answer) -> float:
    """Seconds to wait after a 429: from the body, else from its words, else from the header; never absurd."""
    document = answer.document() or {}
    words = _RESETS_IN.search(str(document.get("detail", "")))
    candidates = (document.get("retry_after"), words[1] if words else None, answer.headers.get("retry-after"))
    for candidate in candidates:
        try:
            seconds = math.nan if isinstance(candidate, bool | None) else float(candidate)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MAX_RETRY_AFTER_S)
    return DEFAULT_RETRY_AFTER_S


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def seconds_or_none(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def kind_word(value: object) -> str:
    """What a value is, without the value itself: it may be a secret or a megabyte."""
    words = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else words.get(type(value), type(value).__name__)
