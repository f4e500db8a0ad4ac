"""The checks: what blocks a set, what excludes an image, what is only warned about."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_pipeline.image_sets.findings import Finding, Severity, worst
from lora_pipeline.image_sets.image_checks import image_findings
from lora_pipeline.image_sets.likeness import bits_apart
from lora_pipeline.image_sets.profiles import PROFILES, profile_named
from lora_pipeline.image_sets.records import MemberRecord, SetAssessment
from lora_pipeline.image_sets.set_checks import assess, may_be_included
from lora_pipeline_tests.image_sets.records import FLUX, context, image, member, members


def codes(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.code for finding in findings}


def of_member(assessment: SetAssessment, name: str) -> set[str]:
    return codes(next(m for m in assessment.members if m.member.name == name).findings)


def included(assessment: SetAssessment) -> list[str]:
    return [m.member.name for m in assessment.included]


def flipped(phash: str | None, bits: int) -> str:
    """The hash with that many bits changed."""
    assert phash is not None
    return f"{int(phash, 16) ^ ((1 << bits) - 1):016x}"


# One image


def test_a_flawless_photograph_has_no_findings() -> None:
    assert image_findings("a.jpg", image(1), FLUX) == ()


@pytest.mark.parametrize(
    ("profile", "side", "code", "severity"),
    [
        ("flux", 511, "too_small", Severity.EXCLUDE),
        ("flux", 512, "small", Severity.WARN),
        ("flux", 1023, "small", Severity.WARN),
        ("flux", 1024, None, None),
        ("demo", 255, "too_small", Severity.EXCLUDE),
        ("demo", 256, None, None),
    ],
)
@pytest.mark.parametrize("upright", [True, False])
def test_the_shorter_side_decides(
    profile: str, side: int, code: str | None, severity: Severity | None, upright: bool
) -> None:
    sides = {"width": side, "height": side + 100} if upright else {"width": side + 100, "height": side}
    found = image_findings("a.jpg", image(1, **sides), PROFILES[profile])
    if code is None:
        assert found == ()
        return
    assert [(f.code, f.severity, f.value) for f in found] == [(code, severity, side)]
    assert found[0].remedy
    assert found[0].threshold in (256, 512, 1024)


@pytest.mark.parametrize(("width", "warned"), [(2400, False), (2401, True), (599, True), (600, False)])
def test_long_formats_are_warned_about(width: int, warned: bool) -> None:
    found = codes(image_findings("a.jpg", image(1, width=width, height=1200), FLUX))
    assert ("long_format" in found) is warned


@pytest.mark.parametrize(
    ("sharpness", "code"), [(19.9, "blurred"), (20.0, "soft"), (59.9, "soft"), (60.0, None)]
)
def test_blur_is_warned_about_and_softness_noted(sharpness: float, code: str | None) -> None:
    assert codes(image_findings("a.jpg", image(1, sharpness=sharpness), FLUX)) == ({code} if code else set())


def test_an_apple_double_is_excluded_by_its_name_whatever_it_holds() -> None:
    found = image_findings("holiday/._a.jpg", image(1), FLUX)
    assert [(f.code, f.severity) for f in found] == [("apple_double", Severity.EXCLUDE)]


def test_an_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"sdxl.*flux, demo"):
        profile_named("sdxl")


# How many


@pytest.mark.parametrize("count", [0, 1, 4])
def test_fewer_than_five_usable_images_block_the_set(count: int) -> None:
    assessment = assess(members(count), context())
    (blocked,) = assessment.blocking
    assert blocked.code == "too_few_images"
    assert blocked.message == "At least 5 training images are required"
    assert (blocked.value, blocked.threshold) == (count, 5)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (5, {"few_images"}),
        (9, {"few_images"}),
        (10, set()),
        (30, set()),
        (31, {"many_images"}),
        (100, {"many_images"}),
        (101, {"too_many_images"}),
    ],
)
def test_few_and_many_images_are_warned_about_and_over_the_cap_blocked(
    count: int, expected: set[str]
) -> None:
    assessment = assess(members(count), context())
    assert codes(assessment.findings) == expected
    assert bool(assessment.blocking) is (count > 100)


def test_excluded_images_do_not_count() -> None:
    small = [member(n, image=image(n, width=300)) for n in range(5, 9)]
    assert codes(assess([*members(4), *small], context()).blocking) == {"too_few_images"}


@pytest.mark.parametrize(("count", "warned"), [(13, True), (14, False)])
def test_a_retrain_on_far_fewer_images_than_before_is_warned_about(count: int, warned: bool) -> None:
    found = codes(assess(members(count), context(previous_count=20)).findings)
    assert ("fewer_than_before" in found) is warned


# Likeness


def test_the_same_file_twice_is_trained_once_and_the_other_is_named() -> None:
    twin = replace(member(0), name="z copy.jpg")
    assessment = assess([*members(6), twin], context())
    assert "z copy.jpg" not in included(assessment)
    excluded = assessment.members[-1]
    assert [(f.code, f.value) for f in excluded.findings] == [("exact_duplicate", "photo-000.jpg")]
    assert "photo-000.jpg" in excluded.reason


@pytest.mark.parametrize(
    ("bits", "code"),
    [(0, "near_duplicate"), (6, "near_duplicate"), (7, "similar"), (10, "similar"), (11, None)],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_likeness_is_told_by_the_bits_that_differ(bits: int, code: str | None, mirrored: bool) -> None:
    first = image(0)
    like = flipped(first.phash_mirror if mirrored else first.phash, bits)
    second = member(1, image=image(1, phash=like))
    assessment = assess([member(0), second, *members(8)[2:]], context())
    assert of_member(assessment, "photo-001.jpg") == ({code} if code else set())
    assert "photo-001.jpg" in included(assessment)
    if code:
        (found,) = assessment.members[1].findings
        assert ("mirror" in found.message) is mirrored
        assert found.value == bits


def test_the_nearest_of_several_is_named() -> None:
    like = [member(n, image=image(n, phash=flipped(image(0).phash, bits))) for n, bits in ((1, 5), (2, 4))]
    assessment = assess([member(0), *like], context())
    assert assessment.members[2].findings[0].message == "Almost the same as photo-001.jpg"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_distance_is_symmetric_and_zero_only_for_equals(one: int, other: int) -> None:
    a, b = f"{one:016x}", f"{other:016x}"
    assert bits_apart(a, b) == bits_apart(b, a)
    assert (bits_apart(a, b) == 0) is (one == other)


# Trigger, size, sameness, captions, names


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"trigger_word": None}, "trigger_missing"),
        ({"trigger_word": ""}, "trigger_missing"),
        ({"trigger_used_by": "user-51"}, "trigger_taken"),
        ({"trained_trigger": "user50"}, "trigger_changed"),
    ],
)
def test_a_trigger_word_that_is_missing_taken_or_changed_blocks(changes: dict[str, Any], code: str) -> None:
    assessment = assess(members(12), context(**changes))
    assert codes(assessment.blocking) == {code}
    assert all(finding.remedy for finding in assessment.blocking)


def test_the_same_trigger_word_as_before_is_fine() -> None:
    assert assess(members(12), context(trained_trigger="user50c")).findings == ()


def test_a_zip_over_the_providers_limit_blocks_with_the_numbers() -> None:
    (blocked,) = assess(members(12), context(zip_limit_bytes=1_000_000)).blocking
    assert blocked.code == "zip_too_large"
    assert blocked.threshold == 1_000_000
    assert isinstance(blocked.value, int)
    assert blocked.value > 1_200_000
    assert assess(members(12), context(zip_limit_bytes=2_000_000)).blocking == ()


def test_photographs_of_one_day_are_warned_about() -> None:
    same = [replace(m, image=replace(m.image, captured_on="2024-05-17")) for m in members(10)]
    assert codes(assess(same, context()).findings) == {"one_capture_day"}


def test_one_photograph_of_another_or_of_no_day_is_enough_variety() -> None:
    same = [replace(m, image=replace(m.image, captured_on="2024-05-17")) for m in members(10)]
    for day in (None, "2024-05-18"):
        other = replace(same[0], image=replace(same[0].image, captured_on=day))
        assert assess([other, *same[1:]], context()).findings == ()


@pytest.mark.parametrize(("captioned", "warned"), [(0, False), (1, True), (9, True), (10, False)])
def test_captions_for_some_images_only_are_warned_about(captioned: int, warned: bool) -> None:
    some = [replace(m, caption="a face" if n < captioned else None) for n, m in enumerate(members(10))]
    assert ("captions_partial" in codes(assess(some, context()).findings)) is warned


def test_two_files_with_one_stem_are_both_in_and_noted() -> None:
    pair = [replace(member(20), name="a.jpg"), replace(member(21), name="a.png")]
    assessment = assess([*pair, *members(10)], context())
    assert {"a.jpg", "a.png"} <= set(included(assessment))
    (noted,) = assessment.findings
    assert (noted.code, noted.severity) == ("shared_names", Severity.NOTE)


# What a person decides


def test_a_person_may_take_an_image_out() -> None:
    assessment = assess([replace(member(0), choice="excluded"), *members(11)[1:]], context())
    assert "photo-000.jpg" not in included(assessment)
    assert assessment.members[0].reason == "Excluded by a person"


def test_what_a_person_took_out_stays_out_under_another_name() -> None:
    first = replace(member(0), choice="excluded")
    for name in ("a copy.jpg", "z copy.jpg"):
        assessment = assess([first, replace(member(0), name=name)], context())
        assert included(assessment) == []


def test_a_person_may_take_a_small_image_in() -> None:
    small = member(0, image=image(0, width=300), choice="included")
    assert included(assess([small], context())) == ["photo-000.jpg"]


@pytest.mark.parametrize("code", ["damaged", "not_an_image", "too_many_pixels", "apple_double"])
def test_nobody_can_take_in_what_is_no_image(code: str) -> None:
    refused = Finding(code, Severity.EXCLUDE, "no")
    bad = member(0, image=image(0, normalised=None, findings=(refused,)), choice="included")
    assessment = assess([bad], context())
    assert included(assessment) == []
    assert not may_be_included(assessment.members[0])


# The whole


def varied(number: int, width: int, choice: str | None, caption: str | None) -> MemberRecord:
    return member(number, image=image(number, width=width), choice=choice, caption=caption)


MEMBERS = st.lists(
    st.builds(
        varied,
        st.integers(0, 12),
        st.sampled_from([300, 700, 1500]),
        st.sampled_from([None, "included", "excluded"]),
        st.sampled_from([None, "words"]),
    ),
    max_size=15,
    unique_by=lambda m: m.name,
)


@settings(max_examples=100)
@given(MEMBERS, st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(some: list[MemberRecord], random: Any) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)
    assert assess(some, context()) == assess(shuffled, context())


@given(MEMBERS)
def test_every_member_has_a_verdict_and_every_exclusion_a_reason(some: list[MemberRecord]) -> None:
    assessment = assess(some, context())
    assert len(assessment.members) == len(some)
    for m in assessment.members:
        assert m.included or m.reason
        if m.member.choice == "excluded":
            assert not m.included
    assert bool(assessment.blocking) is (len(assessment.included) < 5)


@given(
    st.builds(
        Finding,
        st.text(),
        st.sampled_from(Severity),
        st.text(),
        st.one_of(st.none(), st.integers(-(2**53), 2**53), st.text()),
    )
)
def test_a_finding_survives_json(finding: Finding) -> None:
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding


def test_the_worst_of_findings_is_the_most_serious() -> None:
    some = [Finding("a", severity, "") for severity in (Severity.NOTE, Severity.EXCLUDE, Severity.WARN)]
    assert worst(some) is Severity.EXCLUDE
    assert worst([]) is None
