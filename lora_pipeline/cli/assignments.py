"""`NAME=VALUE` arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click


def assignments(texts: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """`steps=1500` → {"steps": 1500}: a value that is JSON is read as such, anything else is a text.

    click.BadParameter on what is no assignment, and on a name that is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not (equals and name):
            raise click.BadParameter(f"got {text!r}; expected NAME=VALUE", param_hint=option)
        if name in found:
            raise click.BadParameter(f"got {name} twice; give it once", param_hint=option)
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
