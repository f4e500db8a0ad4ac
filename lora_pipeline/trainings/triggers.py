"""The trigger word of a model: made once from its id, fixed for the model's life.

A retrain under another word would break every prompt that its user has saved. Storing the word, and reading which
words are taken, belongs to whoever creates the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator
from itertools import count, product
from string import ascii_lowercase
from typing import Literal

ModelType = Literal["person", "object", "style"]

_PREFIX: dict[ModelType, str] = {"person": "user", "object": "object", "style": "style"}
_LONGEST = 48
"""Characters of the base; the column holds 64."""


def trigger_word_for(identifier: str, taken: Container[str], model_type: ModelType = "person") -> str:
    """A trigger word that no other model has.

    `user` (or `object`, `style`) and the digits and letters of the id: 42585527 gives user42585527, user-50c gives
    user50c, style_1 gives style1. Where that is taken a letter is added: user42585527b. The prefix keeps it from
    being a word of a dictionary, which would act without being asked for. An e-mail address, or an id
    without digits and letters, gives digits of its hash instead.
    """
    base = trigger_base(identifier, model_type)
    return next(word for word in _candidates(base) if word not in taken)


def trigger_base(identifier: str, model_type: ModelType = "person") -> str:
    """The word that the id gives by itself; every word made from the id starts with it."""
    prefix = _PREFIX[model_type]
    rest = re.sub(r"[^a-z0-9]", "", identifier.lower()).removeprefix(prefix)
    if not rest or "@" in identifier:
        rest = hashlib.sha256(identifier.encode()).hexdigest()[:8]
    return (prefix + rest)[:_LONGEST]


def _candidates(base: str) -> Iterator[str]:
    """The base, then with b to z, then with ba, bb, …: the second model of an id has b."""
    yield base
    for length in count(1):
        for first, *others in product(ascii_lowercase[1:], *[ascii_lowercase] * (length - 1)):
            yield base + first + "".join(others)
