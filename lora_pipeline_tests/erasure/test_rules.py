"""Which weights survive an erasure, and which words mean somebody."""

from __future__ import annotations

import pytest

from lora_pipeline.erasure.plan import SHARED, Kind, Lying, is_mentioned, weights_items
from lora_pipeline.erasure.rows import _as_words

OWN = Lying("s3://b/loras/user-5/a", "0" * 64, in_own_folder=True)
ELSEWHERE = Lying("s3://b/loras/user-6/a", "0" * 64, in_own_folder=False)


def kept(places: list[Lying], *, shared: bool, others: set[str]) -> set[str]:
    items = list(weights_items(places, shared=shared, named_by_others=others))
    assert all(item.kind is Kind.WEIGHTS for item in items)
    assert {item.stays for item in items} <= {"", SHARED}
    return {item.target for item in items if item.stays}


def test_weights_of_one_user_alone_go_wherever_they_lie() -> None:
    assert kept([OWN, ELSEWHERE], shared=False, others=set()) == set()


def test_an_address_that_anothers_version_names_stays() -> None:
    assert kept([OWN, ELSEWHERE], shared=False, others={ELSEWHERE.address}) == {ELSEWHERE.address}


def test_of_shared_weights_only_the_own_copy_goes_and_only_where_the_other_has_one() -> None:
    assert kept([OWN, ELSEWHERE], shared=True, others={ELSEWHERE.address}) == {ELSEWHERE.address}
    assert kept([OWN, ELSEWHERE], shared=True, others=set()) == {OWN.address, ELSEWHERE.address}
    assert kept([OWN], shared=True, others=set()) == {OWN.address}
    assert kept([OWN], shared=True, others={OWN.address}) == {OWN.address}


@pytest.mark.parametrize(
    "text",
    [
        "user-5",
        "user-5 V3",
        "loras/user-5/x.safetensors",
        "acme/x of USER-5.",
        "user-5_V3.safetensors",
        "m@example.org",
        "5",
    ],
)
def test_a_name_is_found_as_a_word(text: str) -> None:
    words = {"5", "user-5", "m@example.org"}
    assert is_mentioned({"a": [1, {"b": text}]}, words, _as_words(words))


@pytest.mark.parametrize(
    "text", ["user-50c", "super-user-5", "user-5-selfie", "user-5_2", "attempt 5 of 5", "am@example.org"]
)
def test_what_only_looks_like_a_name_is_not(text: str) -> None:
    words = {"5", "user-5", "m@example.org"}
    assert not is_mentioned([text, 5, None], words, _as_words(words))


def test_a_short_name_is_no_word() -> None:
    assert not is_mentioned("attempt 42 failed", {"42"}, _as_words({"42"}))
