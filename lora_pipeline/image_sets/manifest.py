"""The manifest of a frozen set: what is in it, by content, and what was said about each file. Pure text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from lora_pipeline.image_sets.records import MemberAssessment, SetAssessment

FORMAT = 1


def set_digest(included: Sequence[MemberAssessment], trigger_word: str) -> str:
    """SHA-256 over what a training learns from: the normalised images in order, their captions, the trigger word.

    Independent of ids, times, file names and findings: the same set has the same digest wherever it is frozen.
    """
    content = [
        [m.member.image.normalised.sha256, m.member.caption or ""]
        for m in included
        if m.member.image.normalised
    ]
    canonical = json.dumps([FORMAT, trigger_word, content], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def name_in_zip(position: int) -> str:
    """`000.jpg` for the first image: a name that no trainer and no file system stumbles over."""
    return f"{position:03}.jpg"


def manifest_json(
    assessment: SetAssessment, *, image_set_id: int, model_key: str, trigger_word: str, profile: str
) -> bytes:
    """The manifest as JSON text. Holds the files' names, so it belongs into the object store and nowhere else."""
    included = assessment.included
    numbers = {id(member): number for number, member in enumerate(included)}
    record = {
        "format": FORMAT,
        "image_set": image_set_id,
        "model": model_key,
        "trigger_word": trigger_word,
        "profile": profile,
        "digest": set_digest(included, trigger_word),
        "findings": [finding.to_dict() for finding in assessment.findings],
        "images": [_image(member, numbers[id(member)]) for member in included],
        "excluded": [_file(member) for member in assessment.members if not member.included],
    }
    return json.dumps(record, ensure_ascii=False, indent=1).encode()


def _image(assessed: MemberAssessment, position: int) -> dict[str, Any]:
    normalised = assessed.member.image.normalised
    assert normalised is not None, "only what has a normalised image is included"
    return {
        "name": name_in_zip(position),
        "normalised_sha256": normalised.sha256,
        "size": normalised.size,
        "crc32": normalised.crc32,
        "caption": assessed.member.caption,
        **_file(assessed),
    }


def _file(assessed: MemberAssessment) -> dict[str, Any]:
    return {
        "source_name": assessed.member.name,
        "original_sha256": assessed.member.image.sha256,
        "findings": [finding.to_dict() for finding in assessed.findings],
    }
