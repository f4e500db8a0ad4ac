"""Progress: read off the trainer's own log lines only, estimated without ever claiming the end, never backwards."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.simulator.logs import progress as bar
from lora_pipeline.trainings.progress import (
    Progress,
    estimate_progress,
    expected_seconds,
    merge_progress,
    read_losses,
    read_progress,
)

LINE = "flux_train_replicate:  10%|█         | 100/1000 [01:23<11:07, 1.35it/s, lr: 4.0e-04 loss: 3.1e-01]"
FIRST = "flux_train_replicate:   0%|          | 0/1000 [00:00<?, ?it/s]"


def line(step: int, total: int = 1000, loss: float = 0.31) -> str:
    return bar("flux_train_replicate: ", step, total, step * 0.9, f", lr: 4.0e-04 loss: {loss:.1e}")


def test_a_line_of_the_trainer_is_read_whole() -> None:
    assert read_progress(LINE) == Progress(10, 100, 1000, loss=0.31, seconds_left=667.0)
    assert read_progress(FIRST) == Progress(0, 0, 1000, loss=None, seconds_left=None)
    assert read_progress(LINE.replace("11:07", "1:02:03")) == Progress(10, 100, 1000, 0.31, 3723.0)


def test_the_last_line_counts_whatever_ends_the_lines() -> None:
    for end in ("\r", "\n", "\r\n", "\x1b[A\r"):
        found = read_progress(end.join([FIRST, LINE, line(370), ""]))
        assert found is not None
        assert (found.percent, found.step) == (37, 370)


@pytest.mark.parametrize(
    "other",
    [
        "Fetching 23 files: 100%|██████████| 23/23 [00:09<00:00, 2.50it/s]",
        "100%|██████████| 12/12 [00:00<00:00, 99.99it/s]",
        "Uploading:  50%|█████     | 82/164 [00:04<00:04, 20.00MB/s]",
        "my_flux_train_replicate:  90%|█████████ | 900/1000 [01:23<11:07, 1.35it/s]",
        "Saved to output/flux_train_replicate/flux_train_replicate.safetensors",
        "flux_train_replicate: 100%",
        "flux_train_replicate:  99%|█████████ | 100/10",
        "flux_train_replicate:  99%|█████████ | 990/1000 [13:20<00:08, 1.2",
        "flux_train_replicate:  99%|█████████ | 0/0 [00:00<?, ?it/s]",
    ],
)
def test_other_bars_and_lines_cut_off_do_not_count(other: str) -> None:
    assert read_progress(other) is None
    for log in (f"{LINE}\r{other}", f"{LINE}\n{other}\n", f"{other}\r{LINE}"):
        found = read_progress(log)
        assert found is not None
        assert found.step == 100


@pytest.mark.parametrize("loss", ["nan", "inf", "?", "1.2.3"])
def test_a_loss_that_is_no_number_is_left_out(loss: str) -> None:
    found = read_progress(LINE.replace("3.1e-01", loss))
    assert found is not None
    assert found.loss is None
    assert read_losses(LINE.replace("3.1e-01", loss)) == []


@given(st.text())
def test_any_text_is_a_log(text: str) -> None:
    for log in (text, f"flux_train_replicate: {text}", LINE[:60] + text, LINE + text):
        found = read_progress(log)
        assert found is None or 0 <= found.percent <= 100
        read_losses(log)


@given(done=st.integers(0, 5000), left=st.integers(1, 5000))
def test_percent_never_claims_more_than_was_done(done: int, left: int) -> None:
    found = read_progress(line(done, done + left))
    assert found is not None
    assert found.percent * (done + left) <= 100 * done
    assert found.percent < 100


def test_the_curve_rises_by_step_and_the_last_print_of_a_step_counts() -> None:
    log = "\r".join([line(2, loss=0.5), line(1, loss=0.9), "noise", line(2, loss=0.4)])
    assert read_losses(log) == [(1, 0.9), (2, 0.4)]


@given(count=st.integers(0, 60), limit=st.integers(0, 20))
def test_the_curve_is_thinned_evenly_and_keeps_both_ends(count: int, limit: int) -> None:
    points = read_losses("\r".join(line(step) for step in range(count)), limit)

    steps = [step for step, _ in points]
    assert len(steps) == min(count, limit)
    assert steps == sorted(set(steps))
    if limit >= 2 and count:
        assert (steps[0], steps[-1]) == (0, count - 1)
        gaps = {after - before for before, after in pairwise(steps)}
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_log_of_many_megabytes_is_read_from_its_end() -> None:
    noise = "Uploading:  50%|█████     | 82/164 [00:04<00:04, 20.00MB/s]\r" * 150_000
    curve = "\r".join(line(step, 20_000) for step in range(20_000))
    started = time.process_time()
    found = read_progress(noise + curve)
    read_s = time.process_time() - started
    assert found is not None
    assert found.step == 19_999
    assert len(read_losses(noise + curve + noise)) == 200
    # Milliseconds and a tenth of a second when measured; the bound only catches reading from the front, or worse.
    assert read_s < 0.1
    assert time.process_time() - started < 3


def test_a_log_full_of_the_label_without_a_bar_is_given_up() -> None:
    started = time.process_time()
    assert read_progress("flux_train_replicate: |" * 300_000) is None
    read_losses("flux_train_replicate: |" * 300_000)
    assert time.process_time() - started < 3


finite = st.floats(0, 1e9)


@given(earlier=finite, later=finite, expected=finite)
def test_an_estimate_never_falls_and_never_reaches_99(earlier: float, later: float, expected: float) -> None:
    earlier, later = sorted((earlier, later))
    assert 0 <= estimate_progress(earlier, expected) <= estimate_progress(later, expected) < 99


@pytest.mark.parametrize("elapsed", [math.nan, -1.0, 0.0])
@pytest.mark.parametrize("expected", [math.nan, math.inf, -1.0, 0.0, 100.0])
def test_an_estimate_of_nonsense_is_nothing(elapsed: float, expected: float) -> None:
    assert estimate_progress(elapsed, expected) == 0


def test_an_estimate_is_honest_about_being_late() -> None:
    assert [estimate_progress(minutes * 60, 1800) for minutes in (0, 15, 30, 60, 6000)] == [0, 45, 90, 95, 98]
    assert estimate_progress(math.inf, 1800) == 98


def test_the_expected_time_is_the_median_of_comparable_trainings() -> None:
    assert expected_seconds([600.0, 700.0, 90_000.0], steps=1000) == 700.0
    assert expected_seconds([math.nan, -5.0, 0.0, 650.0], steps=1000) == 650.0


def test_before_there_is_any_history_it_is_the_half_hour_people_are_told() -> None:
    assert expected_seconds([], steps=1000) == 1800.0
    assert expected_seconds([], steps=3000) == 3600.0


@given(news=st.lists(st.integers(-10, 110)))
def test_what_is_shown_never_goes_backwards_whatever_the_order(news: list[int]) -> None:
    shown = 0
    for seen in news:
        after = merge_progress(shown, seen)
        assert shown <= after <= 100
        shown = after
    assert shown == min(max([0, *news]), 100)
