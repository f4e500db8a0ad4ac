"""Requests that may be repeated: whose answer is whose, and what an attempt that came to no end leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lora_pipeline.access.repeats import ANSWERING, KEPT, Claim, KeyUsedOtherwise, StillAnswering, begin, end
from lora_pipeline.database.sessions import Database

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_an_answer_is_its_askers_alone(database: Database) -> None:
    begin(database, "42", "key", "request", NOW)
    end(database, "42", "key", {"modelId": "user-42"})
    assert begin(database, "43", "key", "request", NOW) == Claim()
    assert begin(database, "42", "key", "request", NOW).answer == {"modelId": "user-42"}


def test_while_one_is_answered_the_same_waits_and_another_is_refused(database: Database) -> None:
    begin(database, "42", "key", "request", NOW)
    with pytest.raises(StillAnswering):
        begin(database, "42", "key", "request", NOW + ANSWERING - SECOND)
    with pytest.raises(KeyUsedOtherwise):
        begin(database, "42", "key", "another", NOW)


def test_after_an_error_it_may_be_tried_again_and_nothing_of_before_counts(database: Database) -> None:
    begin(database, "42", "key", "request", NOW)
    end(database, "42", "key", None)
    assert begin(database, "42", "key", "request", NOW + SECOND) == Claim()
    # This one's server dies: what was done since it began was for this request, and not what was done before.
    assert begin(database, "42", "key", "request", NOW + 2 * ANSWERING) == Claim(since=NOW + SECOND)


def test_an_answer_is_kept_for_two_days(database: Database) -> None:
    begin(database, "42", "key", "request", NOW)
    end(database, "42", "key", {"modelId": "user-42"})
    assert begin(database, "42", "key", "request", NOW + KEPT - SECOND).answer is not None
    assert begin(database, "42", "key", "request", NOW + KEPT + SECOND) == Claim()
