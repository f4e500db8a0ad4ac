"""Names of files, models and users as data: what they say, and what they may become.

A file's name never becomes a path: objects are named by hashes, images in a ZIP by numbers.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import quote

MODEL_DESCRIPTION = "model.toml"
CAPTION_SUFFIX = ".txt"

_MODEL_KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_SEGMENT_BYTES = 200  # file systems allow 255 in one name
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", MODEL_DESCRIPTION})
_UNSHOWABLE = frozenset({"Cc", "Cs"})  # control characters, and what is left of bytes that were no UTF-8
_BIDI_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(name: str) -> str:
    """The name, fit for a database, a screen and a log: nothing that hides, turns round or breaks a line.

    Spaces, umlauts, emoji and `../` stay as they are. What cannot be shown becomes U+FFFD.
    """
    return "".join(
        "\ufffd" if unicodedata.category(char) in _UNSHOWABLE or char in _BIDI_CONTROLS else char
        for char in name
    )


def stem(name: str) -> str:
    """The name without its extension, folders kept: what ties an image to its caption."""
    folder, slash, base = name.rpartition("/")
    before, dot, _ = base.rpartition(".")
    return folder + slash + before if dot and before else name


def _base(name: str) -> str:
    return name.rpartition("/")[2]  # pathlib costs ten times as much, and an inbox may list a million names


def is_apple_double(name: str) -> bool:
    """Whether macOS wrote this file beside the real one (`._photo.jpg`): it has the name of an image, not its content.

    Nested ones pass the filter of Replicate's trainer and crash its captioner.
    """
    return _base(name).startswith("._")


def is_caption(name: str) -> bool:
    """Whether the file would be an image's caption."""
    return not is_apple_double(name) and name.lower().endswith(CAPTION_SUFFIX)


def is_bystander(name: str) -> bool:
    """Whether the file is none of ours: what systems and copying programs leave, captions, the description.

    Everything else is taken for an image, so that a person learns why it is none.
    """
    base = _base(name).lower()
    hidden = base.startswith(".") and not is_apple_double(name)
    return hidden or base in _SYSTEM_FILES or is_caption(name)


def is_model_key(text: str) -> bool:
    """Whether the text can name a model: letters, digits, `.`, `_` and `-`, at most 100, no e-mail address."""
    return _MODEL_KEY.fullmatch(text) is not None and ".." not in text


def path_segment(user_id: str) -> str:
    """A user id as one segment of an object key: different ids give different segments, none is `.` or `..`."""
    escaped = quote(user_id, safe="").replace("%", "=").replace(".", "=2E")
    if len(escaped) <= _SEGMENT_BYTES:
        return escaped or "="
    return "==" + hashlib.sha256(user_id.encode()).hexdigest()
