"""The plain records that the rules about image sets work on. Rows become these; nothing here knows a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_pipeline.image_sets.findings import Finding, Severity, with_severity

Verdict = Literal["included", "excluded"]


@dataclass(frozen=True)
class NormalisedFile:
    """The derived image that goes into the ZIP, as it lies in the object store."""

    key: str
    sha256: str
    crc32: int
    size: int


@dataclass(frozen=True)
class ImageRecord:
    """What is known of one photograph, whatever set it is in.

    Sides are those of the upright original in pixels. Hashes are 16 hexadecimal digits. What could not be
    decoded has neither sides nor hashes nor a normalised file, and a finding that says why.
    """

    sha256: str
    format: str | None = None
    width: int | None = None
    height: int | None = None
    captured_on: str | None = None
    phash: str | None = None
    phash_mirror: str | None = None
    sharpness: float | None = None
    findings: tuple[Finding, ...] = ()
    normalised: NormalisedFile | None = None


@dataclass(frozen=True)
class MemberRecord:
    """One file in one set: which photograph, under what name, and what a person decided about it (None: nothing)."""

    name: str
    image: ImageRecord
    caption: str | None = None
    choice: Verdict | None = None


@dataclass(frozen=True)
class MemberAssessment:
    """What the checks say about one member, and whether it is in."""

    member: MemberRecord
    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def included(self) -> bool:
        return self.verdict == "included"

    @property
    def reason(self) -> str:
        """One sentence on what became of the file."""
        if self.verdict == "excluded":
            causes = with_severity(self.findings, Severity.EXCLUDE)
            return str(causes[0]) if causes else "Excluded by a person"
        done = [f.message for f in self.findings if f.severity is not Severity.NOTE]
        return "; ".join(["Included", *done])


@dataclass(frozen=True)
class SetAssessment:
    """What the checks say about a whole set. `members` are in the order in which the included ones are numbered."""

    members: tuple[MemberAssessment, ...]
    findings: tuple[Finding, ...]

    @property
    def included(self) -> tuple[MemberAssessment, ...]:
        return tuple(member for member in self.members if member.included)

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return with_severity(self.findings, Severity.BLOCK)
