"""Which photographs of a set are the same, or nearly: exact duplicates by content, near ones by perceptual hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import MemberRecord


@dataclass(frozen=True)
class _Likeness:
    other: str
    bits: int
    mirrored: bool


def bits_apart(one: str, other: str) -> int:
    """How many of 64 bits two perceptual hashes (hexadecimal) differ in."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def exact_duplicate(member: MemberRecord, kept: Sequence[MemberRecord]) -> Finding | None:
    """The finding that this very file, byte for byte, is among the kept ones already; None where it is not."""
    for other in kept:
        if other.image.sha256 == member.image.sha256:
            return Finding(
                "exact_duplicate",
                Severity.EXCLUDE,
                f"The same file as {other.name}",
                other.name,
                remedy="Nothing to do: it is trained once",
            )
    return None


def near_duplicate(
    member: MemberRecord, kept: Sequence[MemberRecord], profile: ImageProfile
) -> Finding | None:
    """The finding that the nearest of the kept images, or its mirror image, shows the same; None where none does."""
    likenesses = [found for other in kept if (found := _likeness(member, other)) is not None]
    nearest = min(likenesses, key=lambda found: found.bits, default=None)
    if nearest is None or nearest.bits > profile.similar_bits:
        return None
    how = "the mirror image of " if nearest.mirrored else ""
    if nearest.bits <= profile.near_duplicate_bits:
        return Finding(
            "near_duplicate",
            Severity.WARN,
            f"Almost {how or 'the same as '}{nearest.other}",
            nearest.bits,
            profile.near_duplicate_bits,
            "Exclude one of the two: repeated pictures are learned by heart",
        )
    return Finding(
        "similar",
        Severity.NOTE,
        f"Similar to {how}{nearest.other}",
        nearest.bits,
        profile.similar_bits,
    )


def _likeness(member: MemberRecord, other: MemberRecord) -> _Likeness | None:
    if member.image.phash is None or other.image.phash is None:
        return None
    upright = _Likeness(other.name, bits_apart(member.image.phash, other.image.phash), mirrored=False)
    if other.image.phash_mirror is None:
        return upright
    mirrored = _Likeness(other.name, bits_apart(member.image.phash, other.image.phash_mirror), mirrored=True)
    return min(upright, mirrored, key=lambda found: found.bits)
