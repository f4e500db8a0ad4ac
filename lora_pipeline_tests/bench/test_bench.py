"""The bench itself works; what it measures at this size says nothing about speed."""

from lora_pipeline_tests.bench import zip_row
from lora_pipeline_tests.bench.__main__ import measure


def test_the_zip_row_measures_speed_memory_and_identity() -> None:
    speed, memory, identity = zip_row.run(quick=True, total=40_000_000)
    assert speed.ratio is not None
    assert speed.ratio > 0
    assert memory.ok
    assert identity.ok


def test_a_row_that_fails_is_a_missed_budget() -> None:
    (row,) = measure("no_such", quick=True)
    assert not row.ok
    assert "no_such_row" in row.note
