"""Plain records for the tests of the rules: an image that no check has anything against, to be changed one by one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from lora_pipeline.image_sets.profiles import PROFILES, ImageProfile
from lora_pipeline.image_sets.records import ImageRecord, MemberRecord, NormalisedFile
from lora_pipeline.image_sets.set_checks import SetContext

FLUX = PROFILES["flux"]


def image(number: int, **changes: Any) -> ImageRecord:
    """A flawless photograph; different numbers are different photographs."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    record = ImageRecord(
        sha256=sha256,
        format="JPEG",
        width=1500,
        height=1200,
        captured_on=f"2024-01-{number % 28 + 1:02}",
        phash=sha256[:16],
        phash_mirror=sha256[16:32],
        sharpness=500.0,
        normalised=NormalisedFile(f"normalised/{sha256}.jpg", sha256[::-1], number, 100_000 + number),
    )
    return replace(record, **changes)


def member(number: int, **changes: Any) -> MemberRecord:
    return replace(MemberRecord(f"photo-{number:03}.jpg", image(number)), **changes)


def members(count: int) -> list[MemberRecord]:
    return [member(number) for number in range(count)]


def context(profile: ImageProfile = FLUX, **changes: Any) -> SetContext:
    return replace(SetContext(profile, trigger_word="user50c"), **changes)
