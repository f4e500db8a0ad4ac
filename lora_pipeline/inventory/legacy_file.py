"""One training_versions.json: its text and what it says, or why it is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_pipeline.inventory.json_text import JsonRefused, parse_strictly
from lora_pipeline.inventory.legacy_tree import FileRefused, digest

VERSIONS = "versions"
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """A file that could be read: `{"versions": [newest, …, oldest], …}`."""

    path: str
    sha256: str
    text: str
    wrapper: dict[str, Any]

    @property
    def entries(self) -> list[Any]:
        """As they stand; check `unidentified` before trusting one to be an object with an id."""
        found = self.wrapper[VERSIONS]
        assert isinstance(found, list)
        return found


def parse_file(path: str, content: bytes) -> LegacyFile:
    """Read a file's bytes. FileRefused with what they are instead."""
    if content.startswith(_MARKS):
        raise FileRefused("begins with a byte order mark; expected plain UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileRefused(
            f"not UTF-8 (byte {error.start}); save it as UTF-8 if it is in another encoding"
        ) from None
    try:
        value = parse_strictly(text)
    except JsonRefused as error:
        raise FileRefused(str(error)) from None
    if isinstance(value, list):
        raise FileRefused('a JSON array; expected an object {"versions": […]}')
    if not isinstance(value, dict) or not isinstance(value.get(VERSIONS), list):
        raise FileRefused('no list of "versions"; expected an object {"versions": […]}')
    return LegacyFile(path, digest(content), text, value)


def unidentified(file: LegacyFile) -> list[str]:
    """What is wrong with entries that cannot be told apart: no object, or no id."""
    found = []
    for index, entry in enumerate(file.entries):
        if not isinstance(entry, dict):
            found.append(f"entry {index + 1} is no object")
        elif not isinstance(entry.get("id"), str) or not entry["id"].strip():
            found.append(f"entry {index + 1} has no id")
    return found
