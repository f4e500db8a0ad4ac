"""What the photographs of a set say together: enough, varied, captioned, under the right trigger word, small enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.image_sets.image_checks import image_findings
from lora_pipeline.image_sets.likeness import exact_duplicate, near_duplicate
from lora_pipeline.image_sets.names import stem
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.records import (
    MemberAssessment,
    MemberRecord,
    SetAssessment,
    Verdict,
)

ZIP_ENTRY_OVERHEAD = 160
"""Bytes a stored entry costs beside its content: two headers of 76 with a name of 7, rounded up."""


@dataclass(frozen=True)
class SetContext:
    """What a set is held against beside its own images."""

    profile: ImageProfile
    trigger_word: str | None
    trigger_used_by: str | None = None
    """Another model that has the same trigger word."""
    trained_trigger: str | None = None
    """The trigger word of the model's previous training."""
    previous_count: int | None = None
    """How many images the previous version was trained on; None before there is one."""
    zip_limit_bytes: int | None = None
    """What the provider accepts as an upload; None where it fetches the ZIP from us."""


def assess(members: Iterable[MemberRecord], context: SetContext) -> SetAssessment:
    """Every check on one set: a verdict for each member, and the findings about the whole.

    Members come out in the order in which the included ones are numbered: by name, then by content, so that the
    same photographs always make the same set.
    """
    ordered = sorted(members, key=lambda member: (member.name, member.image.sha256))
    rejected = [member for member in ordered if member.choice == "excluded"]
    assessed: list[MemberAssessment] = []
    kept: list[MemberRecord] = []
    for member in ordered:
        result = _assess_member(member, kept, rejected, context.profile)
        assessed.append(result)
        if result.included:
            kept.append(member)
    return SetAssessment(tuple(assessed), tuple(_set_findings(kept, context)))


def may_be_included(assessment: MemberAssessment) -> bool:
    """Whether a person may overrule the checks: a small picture yes; what is no image, or is in already, no."""
    decided = {f.code for f in assessment.findings if f.severity is Severity.EXCLUDE}
    return assessment.member.image.normalised is not None and decided <= {"too_small"}


def _assess_member(
    member: MemberRecord,
    kept: Sequence[MemberRecord],
    rejected: Sequence[MemberRecord],
    profile: ImageProfile,
) -> MemberAssessment:
    findings = list(image_findings(member.name, member.image, profile))
    # What a person took out stays out under its other names too.
    same = exact_duplicate(member, [*kept, *(other for other in rejected if other is not member)])
    like = None if same else near_duplicate(member, kept, profile)
    findings += [finding for finding in (same, like) if finding is not None]
    assessment = MemberAssessment(member, "excluded", tuple(findings))
    return MemberAssessment(member, _verdict(assessment), assessment.findings)


def _verdict(assessment: MemberAssessment) -> Verdict:
    choice = assessment.member.choice
    if choice == "excluded":
        return "excluded"
    if any(finding.severity is Severity.EXCLUDE for finding in assessment.findings):
        return "included" if choice == "included" and may_be_included(assessment) else "excluded"
    return "included" if assessment.member.image.normalised is not None else "excluded"


def _set_findings(kept: Sequence[MemberRecord], context: SetContext) -> Iterator[Finding]:
    yield from _count(len(kept), context.profile)
    yield from _trigger(context)
    yield from _size(kept, context.zip_limit_bytes)
    yield from _shrunk(len(kept), context)
    yield from _one_day(kept)
    yield from _captions(kept)
    yield from _stems(kept)


def _count(usable: int, profile: ImageProfile) -> Iterator[Finding]:
    if usable < profile.min_images:
        yield Finding(
            "too_few_images",
            Severity.BLOCK,
            f"At least {profile.min_images} training images are required",
            usable,
            profile.min_images,
            f"{usable} usable: add {profile.min_images - usable} more",
        )
    elif usable < profile.few_images:
        yield Finding(
            "few_images",
            Severity.WARN,
            f"Only {usable} images",
            usable,
            profile.few_images,
            "10 to 20 varied photographs give the best likeness",
        )
    elif usable > profile.max_images:
        yield Finding(
            "too_many_images",
            Severity.BLOCK,
            f"{usable} images, more than the {profile.max_images} allowed",
            usable,
            profile.max_images,
            f"Exclude {usable - profile.max_images}: 10 to 20 are ideal",
        )
    elif usable > profile.many_images:
        yield Finding(
            "many_images",
            Severity.WARN,
            f"{usable} images, more than {profile.many_images}",
            usable,
            profile.many_images,
            "Keep the best: weak photographs dilute the good ones",
        )


def _trigger(context: SetContext) -> Iterator[Finding]:
    word = context.trigger_word
    if not word:
        yield Finding(
            "trigger_missing",
            Severity.BLOCK,
            "The model has no trigger word",
            remedy="Give it one that no other model has",
        )
        return
    if context.trigger_used_by:
        yield Finding(
            "trigger_taken",
            Severity.BLOCK,
            f"The trigger word {word} belongs to {context.trigger_used_by} too",
            word,
            remedy="Give one of the two models another word before its first training",
        )
    if context.trained_trigger and context.trained_trigger != word:
        yield Finding(
            "trigger_changed",
            Severity.BLOCK,
            f"The model was trained with the trigger word {context.trained_trigger}, now it has {word}",
            word,
            context.trained_trigger,
            f"Set it back to {context.trained_trigger}: saved prompts stop working otherwise",
        )


def _size(kept: Sequence[MemberRecord], limit: int | None) -> Iterator[Finding]:
    size = zip_size(kept)
    if limit is not None and size > limit:
        yield Finding(
            "zip_too_large",
            Severity.BLOCK,
            f"The training ZIP would have {size:,} bytes, more than the {limit:,} that the provider accepts",
            size,
            limit,
            "Exclude some images, or use an S3 bucket as object store; their quality is never lowered",
        )


def zip_size(kept: Sequence[MemberRecord]) -> int:
    """About how many bytes the training ZIP of these images will have (images are stored, not deflated)."""
    images = sum(m.image.normalised.size + ZIP_ENTRY_OVERHEAD for m in kept if m.image.normalised)
    captions = sum(len(m.caption.encode()) + ZIP_ENTRY_OVERHEAD for m in kept if m.caption)
    return images + captions


def _shrunk(usable: int, context: SetContext) -> Iterator[Finding]:
    previous, share = context.previous_count, context.profile.shrunk_below
    if previous and usable < share * previous:
        yield Finding(
            "fewer_than_before",
            Severity.WARN,
            f"{usable} images, the previous version had {previous}",
            usable,
            previous,
            "Add the earlier photographs again, or expect a weaker version",
        )


def _one_day(kept: Sequence[MemberRecord]) -> Iterator[Finding]:
    days = {member.image.captured_on for member in kept}
    if len(kept) > 1 and len(days) == 1 and None not in days:
        yield Finding(
            "one_capture_day",
            Severity.WARN,
            f"All photographs were taken on {next(iter(days))}",
            len(days),
            2,
            "Add some from other days: clothes and light of one day are learned as part of the subject",
        )


def _captions(kept: Sequence[MemberRecord]) -> Iterator[Finding]:
    captioned = sum(1 for member in kept if member.caption)
    if 0 < captioned < len(kept):
        yield Finding(
            "captions_partial",
            Severity.WARN,
            f"{captioned} of {len(kept)} images have a caption",
            captioned,
            len(kept),
            "Caption all or none: trainers treat a mixed set in different ways",
        )


def _stems(kept: Sequence[MemberRecord]) -> Iterator[Finding]:
    # Without the names: what is said about a set is shown where file names, which can name people, may not be.
    counts = Counter(stem(member.name).lower() for member in kept)
    shared = sum(count for count in counts.values() if count > 1)
    if shared:
        yield Finding(
            "shared_names",
            Severity.NOTE,
            f"{shared} images share a name but for its extension; the ZIP numbers them",
            shared,
        )
