"""Which model a training_versions.json is of: read from the folder that it lies in. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from lora_pipeline.identity import IdentityError, parse_model_key

_NUMBERED = re.compile(r"(?:(?P<word>style|actor)_)?0*(?P<number>[0-9]{1,9})(?:[_ -](?P<slug>.+))?")
_NOT_LETTERS = re.compile(r"[^a-z]+")
_NOT_KEY = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class LegacyModel:
    """The model that a file's folder stands for."""

    key: str
    kind: Literal["style", "person"]
    name: str


def model_of(path: str, base: str) -> LegacyModel | None:
    """The model of a file (its path below `base`); None where no folder says whether it is a style or an actor.

    `…/style_images/<n>_<slug>/` is `style_<n>`, `…/actors/<nnnn>_<slug>/` is `actor_<n>`. The nearest folder
    that speaks of styles or actors counts, above the base too: it may be named directly.
    """
    folder = PurePosixPath(path).parent
    name = folder.name or PurePosixPath(base).name
    found = _NUMBERED.fullmatch(name)
    above = reversed([*PurePosixPath(base).parts, *folder.parts[:-1]])
    # A slug may speak of styles too (`actors/0006_old_style`): it is asked last.
    told = [found["word"] if found else None, *(_word(part) for part in above), _word(name)]
    word = next(filter(None, told), None)
    if word is None:
        return None
    slug = name if found is None else found["slug"] or name
    identifier = name if found is None else found["number"]
    try:
        key = parse_model_key(f"{word}_{_NOT_KEY.sub('_', identifier.lower()).strip('_')}")
    except IdentityError:
        return None
    return LegacyModel(key, "style" if word == "style" else "person", slug.replace("_", " "))


def _word(folder: str) -> Literal["style", "actor"] | None:
    """Which of the two a folder's name speaks of; an application's own name (`actor_maker`) speaks of neither."""
    words = _NOT_LETTERS.split(folder.lower())
    if "maker" in words:
        return None
    if not {"style", "styles"}.isdisjoint(words):
        return "style"
    return "actor" if not {"actor", "actors"}.isdisjoint(words) else None
