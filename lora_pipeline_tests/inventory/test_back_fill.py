"""Which version a found LoRA belongs to: every strong id, every contradiction, and everything that proves nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import JobId, ObjectRef, parse_job_id
from lora_pipeline.inventory.back_fill import (
    Decision,
    FoundLora,
    KnownLora,
    KnownRun,
    Review,
    Standing,
    claimed_job,
    claims_of,
    decide,
)
from lora_pipeline.inventory.unifying import Place, StrongIds

UUID = "3e248bb6-012c-4384-ae6c-4b19c126d093"
OTHER_UUID = "11111111-012c-4384-ae6c-4b19c126d093"
JOB, SAME_JOB, BASE = parse_job_id(f"{UUID}-e1"), parse_job_id(f"{UUID}-e2"), parse_job_id(UUID)
OTHER_JOB = parse_job_id(f"{OTHER_UUID}-e1")
HERE, THERE = ObjectRef("s3/aws", "b", "here.safetensors"), ObjectRef("s3/aws", "b", "there.safetensors")
A, B = "a" * 64, "b" * 64


def found(**fields: Any) -> FoundLora:
    given: dict[str, Any] = {"ref": HERE, "object_version": "", "content_key": A}
    return FoundLora(**given | fields)


def known(
    number: int = 7,
    *,
    job: JobId | None = None,
    content: str | None = None,
    place: ObjectRef | None = None,
    object_version: str | None = None,
) -> KnownLora:
    ids = StrongIds(
        frozenset() if job is None else frozenset({job}),
        frozenset() if content is None else frozenset({content}),
        frozenset() if place is None else frozenset({Place(place, object_version)}),
    )
    return KnownLora(number, f"V{number} of style_1", ids)


def attached_to(decision: Decision) -> int | None:
    assert (decision.version_id is not None) == (decision.standing is Standing.ATTACHED)
    return decision.version_id


@pytest.mark.parametrize(
    ("lora", "version"),
    [
        (found(), known(content=A)),
        (found(), known(content=A, place=THERE)),
        (found(), known(place=HERE)),
        (found(job=JOB), known(job=JOB)),
        (found(job=BASE), known(job=JOB)),
        (found(job=JOB), known(job=BASE)),
        (found(job=JOB), known(job=JOB, place=HERE)),
        (found(job=JOB), known(job=JOB, content=A, place=THERE)),
        # The same tensors from another job are the same LoRA.
        (found(job=OTHER_JOB), known(job=JOB, content=A)),
        (found(object_version="v1"), known(place=HERE, object_version="v1")),
        (found(object_version="v1"), known(place=HERE)),
        (
            found(object_version="v1", is_current=False, is_alone=False),
            known(place=HERE, object_version="v1"),
        ),
        (found(is_current=False), known(content=A)),
        # The training's token led to it, and nothing else is known of it.
        (found(token="t"), known()),
    ],
)
def test_it_belongs_to_the_version_that_shares_a_strong_id(lora: FoundLora, version: KnownLora) -> None:
    assert attached_to(decide(lora, [version], [])) == 7


@pytest.mark.parametrize(
    ("lora", "version", "why"),
    [
        (found(job=JOB), known(job=JOB, content=B), "2 different contents"),
        (found(job=JOB), known(job=SAME_JOB), "different suffixes"),
        (found(job=JOB), known(job=OTHER_JOB, place=HERE), "different provider jobs"),
        # A checkpoint of the same job.
        (found(job=JOB), known(job=JOB, place=THERE), "one job, different objects"),
        (found(token="t"), known(content=B), "2 different contents"),
        (found(is_alone=False), known(place=HERE), "several contents"),
        (found(object_version="v1", is_current=False, is_alone=False), known(place=HERE), "several contents"),
        (found(object_version="v2", is_current=False), known(place=HERE), "several contents"),
    ],
)
def test_what_contradicts_itself_is_left_to_a_person(lora: FoundLora, version: KnownLora, why: str) -> None:
    decision = decide(lora, [version], [])
    assert decision.standing is Standing.DOUBTFUL
    assert decision.review is Review.DOUBTFUL_OBJECT
    assert why in decision.reason
    assert "V7 of style_1" in decision.reason


def test_what_no_version_knows_is_unregistered() -> None:
    decision = decide(found(job=JOB, token="t"), [], [])
    assert (decision.standing, decision.review) == (Standing.UNREGISTERED, Review.UNREGISTERED_LORA)


def test_another_object_version_of_the_place_is_not_the_one_that_was_meant() -> None:
    decision = decide(found(object_version="v2"), [known(place=HERE, object_version="v1")], [])
    assert decision.standing is Standing.UNREGISTERED


def test_other_bytes_under_a_versions_address_never_become_that_version() -> None:
    decision = decide(found(), [known(content=B, place=HERE)], [])
    assert (decision.standing, decision.displaced) == (Standing.DOUBTFUL, (7,))
    assert "V7 of style_1" in decision.reason


def test_a_retrained_key_belongs_to_the_new_job_and_the_old_version_lost_its_place() -> None:
    old, new = known(7, job=OTHER_JOB, content=B, place=HERE), known(8, job=JOB)
    decision = decide(found(job=JOB), [old, new], [])
    assert (attached_to(decision), decision.displaced) == (8, (7,))


def test_an_older_object_version_displaces_nobody() -> None:
    older = found(object_version="v1", is_current=False, is_alone=False)
    decision = decide(older, [known(content=B, place=HERE)], [])
    assert (decision.standing, decision.displaced) == (Standing.UNREGISTERED, ())


def test_two_versions_of_one_lora_are_for_deduplication() -> None:
    decision = decide(found(), [known(7, content=A), known(8, content=A)], [])
    assert decision.standing is Standing.DOUBTFUL
    assert "lora-pipeline dedupe" in decision.reason


def test_an_ended_training_stays_as_it_ended() -> None:
    run = KnownRun(12, "failed", has_ended=True)
    for versions in ([], [known(content=A)]):
        decision = decide(found(token="t"), versions, [run])
        assert (decision.standing, decision.version_id) == (Standing.DOUBTFUL, None)
        assert (decision.review, decision.subject) == (Review.ENDED_TRAINING, "training run 12")
        assert "ended as failed" in decision.reason


def test_a_training_under_way_is_waited_for() -> None:
    decision = decide(found(token="t"), [], [KnownRun(12, "running", has_ended=False)])
    assert (decision.standing, decision.review, decision.version_id) == (Standing.EXPECTED, None, None)


REFS = st.sampled_from([HERE, THERE])
JOBS = st.sampled_from([None, JOB, SAME_JOB, BASE, OTHER_JOB])
FOUND = st.builds(
    FoundLora,
    ref=REFS,
    object_version=st.sampled_from(["", "v1"]),
    content_key=st.sampled_from([A, B]),
    job=JOBS,
    is_current=st.booleans(),
    is_alone=st.booleans(),
)
IDS = st.builds(
    StrongIds,
    jobs=JOBS.map(lambda job: frozenset() if job is None else frozenset({job})),
    content_keys=st.sampled_from([frozenset(), frozenset({A}), frozenset({B})]),
    places=st.sets(st.builds(Place, REFS, st.sampled_from([None, "v1", "v2"])), max_size=2).map(frozenset),
)
VERSIONS = st.lists(IDS, max_size=4).map(
    lambda ids: [KnownLora(number, f"V{number} of m", one) for number, one in enumerate(ids, 1)]
)


@given(FOUND, VERSIONS)
def test_nothing_is_ever_attached_against_a_known_content(lora: FoundLora, versions: list[KnownLora]) -> None:
    version_id = attached_to(decide(lora, versions, []))
    if version_id is not None:
        contents = versions[version_id - 1].ids.content_keys
        assert contents <= {lora.content_key}


@given(FOUND, VERSIONS, st.randoms())
def test_the_order_of_what_is_known_decides_nothing(
    lora: FoundLora, versions: list[KnownLora], random: Any
) -> None:
    shuffled = list(versions)
    random.shuffle(shuffled)
    one, other = decide(lora, versions, []), decide(lora, shuffled, [])
    assert (one.standing, one.version_id) == (other.standing, other.version_id)
    assert set(one.displaced) == set(other.displaced)


@given(FOUND, VERSIONS)
def test_more_doubt_never_attaches_elsewhere(lora: FoundLora, versions: list[KnownLora]) -> None:
    """What is less sure of its place may lose its version, never gain another one."""
    unsure = replace(lora, is_alone=False)
    before = decide(lora, versions, []).version_id
    assert decide(unsure, versions, []).version_id in (before, None)


def test_claims_are_read_in_every_spelling_and_bounded() -> None:
    metadata = {"Runpod-Job-Id": f" {UUID}-e1 ", "TOKEN": "abc", "note": "x", "replicate_job_id": "r" * 129}
    claims = claims_of(metadata)
    assert claims == {"runpod_job_id": f"{UUID}-e1", "token": "abc"}
    assert claimed_job(claims) == JOB
    assert claims_of({"token": "", "runpod_job_id": " "}) == {}
    assert claimed_job({"runpod_job_id": "style_1_vV7"}) is None
