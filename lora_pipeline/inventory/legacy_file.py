"""One training_versions.json: its text and what it says, or why it is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_pipeline.inventory.entries import MERGED_IDS, has_id
from lora_pipeline.inventory.json_text import JsonRefused, parse_strictly
from lora_pipeline.inventory.legacy_tree import FileRefused, digest
from lora_pipeline.inventory.survivors import PARAMETER

VERSIONS = "versions"
TOO_DEEP = "JSON nested too deeply to work on"
_MARKS = {b"\xef\xbb\xbf": "UTF-8 with a byte order mark", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """A file that could be read: `{"versions": [newest, …, oldest], …}`."""

    path: str
    sha256: str
    text: str
    wrapper: dict[str, Any]

    @property
    def entries(self) -> list[Any]:
        """As they stand; check `obstacles` before trusting one to be an object with an id."""
        found = self.wrapper[VERSIONS]
        assert isinstance(found, list)
        return found


def parse_file(path: str, content: bytes) -> LegacyFile:
    """Read a file's bytes. FileRefused with what they are instead."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise FileRefused(f"in {encoding}; save it as plain UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileRefused(f"in another encoding than UTF-8 (byte {error.start}); save it as UTF-8") from None
    try:
        value = parse_strictly(text)
    except JsonRefused as error:
        raise FileRefused(str(error)) from None
    if isinstance(value, list):
        raise FileRefused('a JSON array; expected an object {"versions": […]}')
    if not isinstance(value, dict) or not isinstance(value.get(VERSIONS), list):
        raise FileRefused('no list of "versions"; expected an object {"versions": […]}')
    return LegacyFile(path, digest(content), text, value)


def obstacles(file: LegacyFile) -> list[str]:
    """What keeps a file's entries from being told apart: no object, no id (a text), a key of ours used otherwise."""
    found = []
    for index, entry in enumerate(file.entries):
        if not isinstance(entry, dict):
            found.append(f"entry {index + 1} is no object")
        elif not has_id(entry):
            given = repr(entry.get("id"))[:40]
            got = "no id" if entry.get("id") is None else f"the id {given}; expected a text that is not empty"
            found.append(f"entry {index + 1} has {got}")
        elif odd := [key for key in entry if key.startswith(PARAMETER)]:
            found.append(f"entry {index + 1} has a key {odd[0][:40]!r}, which reads as one of its parameters")
        elif not _are_texts(entry.get(MERGED_IDS, [])):
            found.append(f"entry {index + 1} has {MERGED_IDS} that are no list of ids")
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
