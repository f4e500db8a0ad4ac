"""What unifies records, and what only looks as if it did."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.identity import JobId, ObjectRef, job_of
from lora_pipeline.inventory.unifying import Place, StrongIds, contradiction, unify

UUID = "3e248bb6-012c-4384-ae6c-4b19c126d093"
OTHER = "11111111-012c-4384-ae6c-4b19c126d093"


def place(key: str = "a/style_1_vV7.safetensors", version: str | None = None) -> Place:
    return Place(ObjectRef("s3/aws", "bucket", key), version)


def ids(
    job: str | None = None,
    at: Place | None = None,
    content: str | None = None,
    outcome: str | None = None,
    version: str | None = None,
) -> StrongIds:
    found = job_of(job)
    assert (found is None) == (job is None)
    return StrongIds(
        jobs=frozenset() if found is None else frozenset((found,)),
        content_keys=frozenset() if content is None else frozenset((content,)),
        places=frozenset() if at is None else frozenset((at,)),
        provider_versions=frozenset() if version is None else frozenset((version,)),
        outcome=outcome,
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ids(at=place()), ids(f"{UUID}-e1", place())),
        (ids(f"{UUID}-e1"), ids(f"{UUID}-e1", place())),
        (ids(UUID), ids(f"{UUID}-e1")),
        (ids(f"{UUID.upper()}-e1"), ids(f"{UUID}-e1")),
        (ids(at=place("x"), content="c"), ids(at=place("y"), content="c")),
        (ids(f"{UUID}-e1", content="c"), ids(f"{OTHER}-e1", content="c")),
        (ids(at=place(version="v1")), ids(at=place())),
        (ids(outcome="completed", at=place()), ids(at=place())),
    ],
)
def test_a_shared_job_content_or_object_unifies(one: StrongIds, other: StrongIds) -> None:
    assert unify([one, other]).groups == ((0, 1),)
    assert unify([other, one]).groups == ((0, 1),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ids(at=place("a/style_1_vV7.safetensors")), ids(at=place("b/style_1_vV7.safetensors"))),
        (ids(), ids()),
        (ids(f"{UUID}-e1"), ids(f"{OTHER}-e1")),
        (ids(content="c"), ids(content="d")),
    ],
)
def test_look_alikes_stay_apart(one: StrongIds, other: StrongIds) -> None:
    found = unify([one, other])
    assert found.groups == ()
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (ids(f"{UUID}-e1", place()), ids(f"{OTHER}-e1", place()), "different provider jobs"),
        (ids(f"{UUID}-e1"), ids(f"{UUID}-e2"), "different suffixes"),
        (ids(at=place(version="1")), ids(at=place(version="2")), "object versions"),
        (ids(at=place(), content="c"), ids(at=place(), content="d"), "different contents"),
        (ids(f"{UUID}-e1", place("s_500")), ids(f"{UUID}-e1", place("s_1000")), "different objects"),
        (ids(f"{UUID}-e1", outcome="failed"), ids(f"{UUID}-e1", outcome="completed"), "failed"),
        (ids(content="c", version="o/m:1"), ids(content="c", version="o/m:2"), "provider versions"),
    ],
)
def test_strong_ids_in_conflict_are_for_a_person(one: StrongIds, other: StrongIds, reason: str) -> None:
    found = unify([one, other])
    assert found.groups == ()
    (doubt,) = found.doubts
    assert reason in doubt.reason
    assert doubt.members == (0, 1)


def test_what_is_surely_one_is_merged_although_another_lies_in_the_same_place() -> None:
    found = unify([ids(f"{UUID}-e1", place()), ids(f"{OTHER}-e1", place()), ids(f"{UUID}-e1", place())])
    assert found.groups == ((0, 2),)
    assert found.doubts[0].members == (0, 1, 2)


_jobs = st.sampled_from([None, f"{UUID}-e1", f"{UUID}-e2", UUID, f"{OTHER}-e1"])
_places = st.none() | st.builds(place, st.sampled_from("abc"), st.sampled_from([None, "1", "2"]))
_records = st.lists(
    st.builds(
        ids,
        _jobs,
        _places,
        st.sampled_from([None, None, "c", "d"]),
        st.sampled_from([None, "completed", "failed"]),
    ),
    max_size=8,
)


@given(_records, st.randoms(use_true_random=False))
def test_the_groups_do_not_depend_on_the_order(records: list[StrongIds], random: object) -> None:
    order = list(range(len(records)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = unify([records[index] for index in order])
    assert {frozenset(order[index] for index in group) for group in shuffled.groups} == {
        frozenset(group) for group in unify(records).groups
    }


@given(_records)
def test_groups_are_free_of_contradictions_and_disjoint(records: list[StrongIds]) -> None:
    found = unify(records)
    for group in found.groups:
        assert len(group) > 1
        assert contradiction([records[index] for index in group]) is None
    members = [index for group in found.groups for index in group]
    assert len(members) == len(set(members))


def test_an_id_that_is_a_name_is_no_job() -> None:
    assert job_of("style_1_vV7") is None
    assert job_of(None) is None
    assert job_of(f" {UUID}-e1 ") == JobId(f"{UUID}-e1", "runpod", UUID)
