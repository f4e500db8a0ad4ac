"""JSON as text: where its parts stand, and edits that leave every other byte as it was.

A file that belongs to somebody else is edited, not re-written: numbers as they are spelled, escapes, indentation
and line ends survive. What is edited, and why, is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")
_INDENT = re.compile(r"\n([ \t]*)\Z")


class JsonRefused(ValueError):
    """The text is not the one JSON object that was expected; the message says what it is."""


@dataclass(frozen=True, slots=True)
class Member:
    """One `"key": value` of an object, as offsets into the text."""

    key: str
    start: int
    value_start: int
    end: int


def parse_strictly(text: str) -> Any:
    """The value of a JSON text. JsonRefused for invalid JSON, a key twice in one object, NaN and the like."""
    try:
        return _STRICT.decode(text)
    except JsonRefused:
        raise
    except RecursionError:
        raise JsonRefused("JSON nested too deeply to read") from None
    except ValueError as error:
        raise JsonRefused(f"invalid JSON: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise JsonRefused(f"the key {twice!r} twice in one object: readers disagree about which one counts")
    return found


def _no_constant(name: str) -> NoReturn:
    raise JsonRefused(f"{name}, which is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
_PLAIN = json.JSONDecoder()


def members(text: str, start: int) -> list[Member]:
    """The members of the object that begins at `start`, in a text that `parse_strictly` took."""
    found = []
    for key_start, key, after_key in _items(text, start):
        value_start = _after_space(text, _after_space(text, after_key) + 1)
        _, end = _PLAIN.raw_decode(text, value_start)
        found.append(Member(key, key_start, value_start, end))
    return found


def elements(text: str, start: int) -> list[tuple[int, int]]:
    """Start and end of each element of the array that begins at `start`."""
    return [(begin, end) for begin, _, end in _items(text, start)]


def _items(text: str, start: int) -> Iterator[tuple[int, Any, int]]:
    """(start, value, end) of what follows the opening bracket and each comma; the value of a member is its key."""
    closing = "}" if text[start] == "{" else "]"
    at = _after_space(text, start + 1)
    while text[at] != closing:
        value, end = _PLAIN.raw_decode(text, at)
        yield at, value, end
        if closing == "}":
            _, end = _PLAIN.raw_decode(text, _after_space(text, _after_space(text, end) + 1))
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def with_elements(text: str, start: int, kept: Mapping[int, str]) -> tuple[str, int]:
    """The array that begins at `start` with only the `kept` elements (index → its new text), and where it ended.

    Order, and the space and commas between elements, stay as they were.
    """
    spans = elements(text, start)
    pieces: list[str] = []
    for index, (begin, _) in enumerate(spans):
        if index in kept:
            pieces.append(text[spans[index - 1][1] : begin] if pieces else text[start : spans[0][0]])
            pieces.append(kept[index])
    end = spans[-1][1]
    closing = _after_space(text, end) + 1
    return "".join([*pieces, text[end:closing]]), closing


def with_members(text: str, start: int, changed: Mapping[str, str]) -> str:
    """The object that begins at `start` (not an empty one) with these members set to these JSON texts.

    A member that is there stays where it is; new ones come last, spaced as the last one was.
    """
    spans = members(text, start)
    last = spans[-1]
    before = text[(spans[-2].end if len(spans) > 1 else start + 1) : last.start].replace(",", "")
    colon = text[_value_end(text, last.start) : last.value_start]
    pieces = []
    at = start
    for member in spans:
        pieces += [
            text[at : member.value_start],
            changed.get(member.key, text[member.value_start : member.end]),
        ]
        at = member.end
    known = {member.key for member in spans}
    pieces += [
        f",{before}{json.dumps(key, ensure_ascii=False)}{colon}{value}"
        for key, value in changed.items()
        if key not in known
    ]
    pieces.append(text[at : _after_space(text, at) + 1])
    return "".join(pieces)


def list_text(values: Sequence[str], text: str, start: int) -> str:
    """A JSON array of strings as a member of the object that begins at `start`, laid out as that object is."""
    items = [json.dumps(value, ensure_ascii=False) for value in values]
    first = members(text, start)[0]
    space = text[start + 1 : first.start]
    if "\n" not in space:
        return f"[{', '.join(items)}]"
    outer = _INDENT.search(text[first.end : _value_end(text, start) - 1])
    newline, _, indent = space.rpartition("\n")
    newline += "\n"
    deeper = indent + indent.removeprefix(outer[1] if outer else "")
    return f"[{newline}{deeper}{f',{newline}{deeper}'.join(items)}{newline}{indent}]"


def _value_end(text: str, start: int) -> int:
    _, end = _PLAIN.raw_decode(text, start)
    return end
