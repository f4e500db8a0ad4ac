"""NAME=VALUE arguments."""

from __future__ import annotations

import click
import pytest

from lora_pipeline.cli.assignments import assignments


def test_values_are_read_as_json_where_they_are_json() -> None:
    found = assignments(["steps=1500", "rate=4e-4", "autocaption=false", "prefix=a photo of, ", "empty="])

    assert found == {
        "steps": 1500,
        "rate": 0.0004,
        "autocaption": False,
        "prefix": "a photo of, ",
        "empty": "",
    }


@pytest.mark.parametrize("text", ["steps", "=5", " =5"])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected NAME=VALUE"):
        assignments([text])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="steps twice"):
        assignments(["steps=1", "steps=2"])
