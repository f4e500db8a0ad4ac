"""What a check says about an image or a set: one record with a stable code. The checks themselves live elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

Measured = str | int | float | None


class Severity(StrEnum):
    """What a finding does, the most serious first."""

    BLOCK = "block"
    """The set cannot be trained."""
    EXCLUDE = "exclude"
    """The image stays out of the set."""
    FIXED = "fixed"
    """The image was changed so that trainers read it as people see it."""
    WARN = "warn"
    """The training will probably suffer."""
    NOTE = "note"
    """Worth knowing; nothing to do."""


@dataclass(frozen=True)
class Finding:
    """One thing found. `code` is stable for programs, `message` and `remedy` are for people.

    `value` is what was measured and `threshold` what it was held against, where there is such a thing.
    """

    code: str
    severity: Severity
    message: str
    value: Measured = None
    threshold: Measured = None
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape that rows and manifests keep."""
        return {**asdict(self), "severity": self.severity.value}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Finding:
        """The finding that `to_dict` wrote."""
        return cls(
            code=record["code"],
            severity=Severity(record["severity"]),
            message=record["message"],
            value=record.get("value"),
            threshold=record.get("threshold"),
            remedy=record.get("remedy", ""),
        )


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The most serious severity among the findings, or None where there are none."""
    order = list(Severity)
    return min((finding.severity for finding in findings), key=order.index, default=None)


def with_severity(findings: Iterable[Finding], severity: Severity) -> tuple[Finding, ...]:
    """The findings of one severity, in their order."""
    return tuple(finding for finding in findings if finding.severity is severity)
