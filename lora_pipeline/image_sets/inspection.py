"""One look at a file's bytes: what it is, what was measured, and its normalised form. Decoded once for all of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lora_pipeline.image_sets.decoding import Decoded, Undecodable, decode
from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.image_sets.fingerprints import fingerprints
from lora_pipeline.image_sets.normalisation import Normalised, normalise


@dataclass(frozen=True)
class Inspection:
    """What the bytes are. Without a decodable picture there is a finding that says why, and nothing normalised.

    Sides are those of the upright original in pixels; hashes are hexadecimal. Findings that depend on a
    profile's thresholds are not here: they are made from these measurements whenever a set is assessed.
    """

    sha256: str
    size: int
    format: str | None = None
    width: int | None = None
    height: int | None = None
    captured_on: str | None = None
    phash: str | None = None
    phash_mirror: str | None = None
    sharpness: float | None = None
    findings: tuple[Finding, ...] = ()
    normalised: Normalised | None = None


def inspect(data: bytes) -> Inspection:
    """Inspect a file's content. Never raises for what the bytes may be."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = decode(data)
    except Undecodable as refusal:
        return Inspection(sha256, len(data), format=refusal.format, findings=(refusal.finding,))
    measured = fingerprints(decoded.picture)
    return Inspection(
        sha256=sha256,
        size=len(data),
        format=decoded.format,
        width=decoded.width,
        height=decoded.height,
        captured_on=decoded.captured_on,
        phash=measured.phash,
        phash_mirror=measured.phash_mirror,
        sharpness=round(measured.sharpness, 2),
        findings=(*decoded.fixes, *_stripped(decoded), *decoded.notes),
        normalised=normalise(decoded, data),
    )


def _stripped(decoded: Decoded) -> tuple[Finding, ...]:
    if not decoded.metadata:
        return ()
    kinds = ", ".join(dict.fromkeys(decoded.metadata))
    return (Finding("metadata_stripped", Severity.FIXED, f"{kinds} removed", kinds),)
