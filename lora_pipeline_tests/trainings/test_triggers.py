"""Trigger words: made from the id, unique, never a plain word."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.trainings.triggers import ModelType, trigger_base, trigger_word_for

MODEL_TYPES: list[ModelType] = list(get_args(ModelType))


@pytest.mark.parametrize(
    ("identifier", "model_type", "word"),
    [
        ("42585527", "person", "user42585527"),
        ("user-50c", "person", "user50c"),
        ("User_50C", "person", "user50c"),
        ("style_1", "style", "style1"),
        ("7", "style", "style7"),
        ("object-cup", "object", "objectcup"),
        ("8d0e1f6a-1111-4222-8333-444455556666", "person", "user8d0e1f6a111142228333444455556666"),
    ],
)
def test_the_word_is_the_kind_and_the_digits_and_letters_of_the_id(
    identifier: str, model_type: ModelType, word: str
) -> None:
    assert trigger_word_for(identifier, set(), model_type) == word


def test_a_taken_word_gets_a_letter() -> None:
    assert trigger_word_for("50c", {"user50c"}) == "user50cb"
    assert trigger_word_for("50c", {"user50c", "user50cb"}) == "user50cc"


def test_the_letters_never_run_out() -> None:
    taken: set[str] = set()
    for _ in range(100):
        taken.add(trigger_word_for("50", taken))
    assert len(taken) == 100


@pytest.mark.parametrize("identifier", ["user", "---", "Ünï", "maria@example.com"])
def test_an_id_that_gives_no_word_of_its_own_gives_part_of_its_hash(identifier: str) -> None:
    word = trigger_word_for(identifier, set())
    assert word == trigger_word_for(identifier, set())
    assert "maria" not in word
    assert len(word) > len("user")


@given(
    st.text(min_size=1, max_size=100), st.sampled_from(MODEL_TYPES), st.lists(st.text(max_size=5), max_size=5)
)
def test_every_id_gives_a_free_word_of_letters_and_digits(
    identifier: str, model_type: ModelType, others: list[str]
) -> None:
    base = trigger_base(identifier, model_type)
    taken = {base, *(base + other for other in others)}
    word = trigger_word_for(identifier, taken, model_type)
    assert word not in taken
    assert word.startswith(base)
    assert re.fullmatch(r"(user|object|style)[a-z0-9]+", word)
    assert len(word) <= 64
