"""JSON as text: where its parts stand, and edits that leave every other byte as it was.

A file that belongs to somebody else is edited, not re-written: numbers as they are spelled, escapes, indentation
and line ends survive. What is edited, and why, is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*")
# Nearly every member: a key and a value in which nothing is escaped and nothing nested. The text was read already,
# so that what matches is one.
_PLAIN_MEMBER = re.compile(
    r'"([^"\\]*)"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*"|[^"\[{ \t\n\r,}]+)[ \t\n\r]*,?[ \t\n\r]*'
)
_INDENT = re.compile(r"\n([ \t]*)\Z")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class JsonRefused(ValueError):
    """The text is not the one JSON object that was expected; the message says what it is."""


class Member(NamedTuple):
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
    except json.JSONDecodeError as error:
        raise JsonRefused(f"invalid JSON: {error}") from None
    except ValueError:  # Python's own limit, told as advice for programmers
        raise JsonRefused("a number of thousands of digits, which no reader takes") from None


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as readable JSON that UTF-8 takes."""
    text = _READABLE.encode(value) if indent is None else json.dumps(value, ensure_ascii=False, indent=indent)
    return with_half_pairs_escaped(text)


def with_half_pairs_escaped(text: str) -> str:
    """JSON with each half of a surrogate pair as its escape: a folder's name, or another's JSON, may hold one."""
    if text.isascii():
        return text
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonRefused(f"the key {twice!r} twice in one object: readers disagree about which one counts")
    return found


def _no_constant(name: str) -> NoReturn:
    raise JsonRefused(f"{name}, which is not JSON")


_READABLE = json.JSONEncoder(ensure_ascii=False)
_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
# Finds where a value ends. The value itself is of no interest: the text was read already.
_scan = json.JSONDecoder().raw_decode


def members(text: str, start: int) -> list[Member]:
    """The members of the object that begins at `start`, in a text that `parse_strictly` took."""
    found = []
    at = _after_space(text, start + 1)
    while text[at] != "}":
        plain = _PLAIN_MEMBER.match(text, at)
        if plain is not None:
            found.append(Member(plain[1], at, plain.start(2), plain.end(2)))
            at = plain.end()
            continue
        key, key_end = _scan(text, at)
        value_start = _end_of(_COLON, text, key_end)
        _, end = _scan(text, value_start)
        found.append(Member(key, at, value_start, end))
        at = _end_of(_COMMA, text, end)
    return found


def value_of(text: str, start: int, key: str) -> int:
    """Where the value of `key` begins in the object at `start`, which has it. What comes behind is not looked at."""
    at = _after_space(text, start + 1)
    while True:
        name, key_end = _scan(text, at)
        value_start = _end_of(_COLON, text, key_end)
        if name == key:
            return value_start
        at = _end_of(_COMMA, text, _scan(text, value_start)[1])


def elements(text: str, start: int) -> list[tuple[int, int]]:
    """Start and end of each element of the array that begins at `start`."""
    found = []
    at = _after_space(text, start + 1)
    while text[at] != "]":
        _, end = _scan(text, at)
        found.append((at, end))
        at = _end_of(_COMMA, text, end)
    return found


def _after_space(text: str, at: int) -> int:
    return _end_of(_SPACE, text, at)


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None
    return found.end()


def with_elements(
    text: str, start: int, spans: Sequence[tuple[int, int]], kept: Mapping[int, str]
) -> tuple[str, int]:
    """The array at `start`, of the elements at `spans`, with only the `kept` (index → its new text), and where it ended.

    Order, and the space and commas between elements, stay as they were.
    """
    pieces: list[str] = []
    for index, (begin, _) in enumerate(spans):
        if index in kept:
            pieces.append(text[spans[index - 1][1] : begin] if pieces else text[start : spans[0][0]])
            pieces.append(kept[index])
    end = spans[-1][1]
    closing = _after_space(text, end) + 1
    return "".join([*pieces, text[end:closing]]), closing


def with_members(
    text: str, start: int, changed: Mapping[str, str], spans: Sequence[Member] | None = None
) -> str:
    """The object that begins at `start` (not an empty one) with these members set to these JSON texts.

    A member that is there stays where it is; new ones come last, spaced as the last one was. `spans` are its members, where
    they are known already.
    """
    spans = spans or members(text, start)
    last = spans[-1]
    before = text[(spans[-2].end if len(spans) > 1 else start + 1) : last.start].replace(",", "")
    colon = text[_scan(text, last.start)[1] : last.value_start]
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
        f",{before}{json_text(key)}{colon}{value}" for key, value in changed.items() if key not in known
    ]
    pieces.append(text[at : _after_space(text, at) + 1])
    return "".join(pieces)


def list_text(values: Sequence[str], text: str, start: int, spans: Sequence[Member]) -> str:
    """A JSON array of strings as a member of the object at `start` with these members, laid out as that object is."""
    items = [json_text(value) for value in values]
    space = text[start + 1 : spans[0].start]
    if "\n" not in space:
        return f"[{', '.join(items)}]"
    outer = _INDENT.search(text[spans[-1].end : _after_space(text, spans[-1].end)])
    newline, _, indent = space.rpartition("\n")
    newline += "\n"
    deeper = indent + indent.removeprefix(outer[1] if outer else "")
    return f"[{newline}{deeper}{f',{newline}{deeper}'.join(items)}{newline}{indent}]"
