"""How one paid job deviates from a normal one, asked for through the control interface: reading and storing it."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self


class AskedFor:
    """Base of the frozen dataclasses that name what a job can be asked to do wrong."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @classmethod
    def parse(cls, details: dict[str, Any]) -> Self:
        """From a control request; raises ValueError naming the keys it does not know."""
        unknown = sorted(set(details) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown training quirk {unknown}; known: {sorted(cls.__dataclass_fields__)}")
        return cls(**details)

    def as_json(self) -> str:
        """Only what deviates."""
        return json.dumps(
            {k: v for k, v in self.__dict__.items() if v != self.__dataclass_fields__[k].default}
        )
