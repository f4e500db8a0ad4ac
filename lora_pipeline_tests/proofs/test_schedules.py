"""A schedule in one line says everything that is needed to run it again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline_tests.proofs import replay
from lora_pipeline_tests.proofs.account import Answer, Conditions, Delivery, Leaves
from lora_pipeline_tests.proofs.schedules import Setting, parsed, read_line, spelled
from lora_pipeline_tests.proofs.world import Fate

counts = st.none() | st.integers(0, 99)
fates = st.builds(
    Fate,
    killed=counts,
    killed_before=counts,
    paused=st.none() | st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.5, 400.0])),
    heard=counts,
)


@given(st.lists(fates, max_size=8).map(tuple))
def test_what_is_spelled_is_read_again(path: tuple[Fate, ...]) -> None:
    assert parsed(spelled(path)) == path


def test_a_line_gives_back_setting_and_path() -> None:
    conditions = Conditions(answers=(Answer.LOST,), deliveries=(Delivery.CUT,), uploads=(False,), lag=90.0)
    setting = Setting(conditions, "hasty", resubmit_after=600.0, store_fails=2)
    path = (Fate(), Fate(killed=3), Fate(paused=(5, 400.0)))
    assert read_line(setting.line(path)) == (setting, path)


def test_a_line_of_runpod_does_too() -> None:
    conditions = Conditions("runpod", leaves=Leaves.UNNAMED, reads=(Answer.NEVER,), looks=(False, True))
    setting = Setting(conditions, "away")
    path = (Fate(), Fate(heard=3))
    assert read_line(setting.line(path)) == (setting, path)


def test_a_replay_says_what_each_tick_did(capsys: pytest.CaptureFixture[str]) -> None:
    replay.main(Setting(Conditions(answers=(Answer.LOST,))).line((Fate(killed=4), Fate())))
    told = capsys.readouterr().out
    assert "after the creation" in told
    assert "['running'] []" in told
