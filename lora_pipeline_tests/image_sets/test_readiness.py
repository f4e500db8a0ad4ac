"""Which models are ready: asked for, or enough and quiet; cheap whatever their number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from lora_pipeline.image_sets.arrivals import new_arrivals
from lora_pipeline.image_sets.drafts import ask_for_training
from lora_pipeline.image_sets.freezing import SetBlocked
from lora_pipeline.image_sets.inbox import IntakeError, scan_inbox
from lora_pipeline.image_sets.readiness import (
    SetState,
    ready_models,
    why_draft_ready,
    why_ready,
)
from lora_pipeline.objects import open_store
from lora_pipeline.objects.local import LocalObjectStore
from lora_pipeline_tests.image_sets.conftest import KEY, House, folder_of, photographs, small
from lora_pipeline_tests.image_sets.test_freezing import add_run

NOW = datetime(2030, 1, 1, tzinfo=UTC)
QUIET = timedelta(minutes=10)


def why(state: SetState) -> str | None:
    return why_ready(state, ready_images=10, ready_quiet=QUIET, now=NOW)


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        (SetState(10, changed=True, last_image_at=NOW - QUIET), True),
        (SetState(9, changed=True, last_image_at=NOW - QUIET), False),
        (SetState(10, changed=False, last_image_at=NOW - QUIET), False),
        (SetState(10, changed=True, blocked=True, last_image_at=NOW - QUIET), False),
        (SetState(10, changed=True, last_image_at=NOW - QUIET + timedelta(seconds=1)), False),
        (SetState(0, asked_for_at=NOW), True),
    ],
)
def test_ready_is_enough_changed_unblocked_and_quiet_or_asked_for(state: SetState, ready: bool) -> None:
    assert (why(state) is not None) is ready


@given(
    st.builds(
        SetState,
        usable=st.integers(0, 20),
        changed=st.booleans(),
        blocked=st.booleans(),
        last_image_at=st.none() | st.timedeltas(timedelta(0), timedelta(days=1)).map(lambda ago: NOW - ago),
    ),
    st.integers(0, 5),
)
def test_more_images_never_make_a_set_unready(state: SetState, more: int) -> None:
    if why(state):
        assert why(replace(state, usable=state.usable + more))


# From the first file to the frozen set


def test_arrivals_make_a_model_ready_before_they_are_taken_in(house: House) -> None:
    house.put(photographs(5))
    (ready,) = house.ready().ready
    assert (ready.model_key, ready.usable, ready.arrivals, ready.known) == (KEY, 5, 5, False)
    assert house.ready_keys(ready_images=6) == []


def test_files_that_just_arrived_are_waited_for_though_they_kept_an_old_time(house: House) -> None:
    house.put(photographs(5))
    for info in house.inbox.list():
        os.utime(folder_of(house.inbox) / info.key, (0, 0))  # as cp -p leaves it
    house.now = datetime.now(UTC)
    assert house.ready_keys() == []
    house.now += QUIET + timedelta(minutes=1)
    assert house.ready_keys() == [KEY]


def test_a_model_is_ready_once_and_again_only_with_something_new(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    assert house.ready_keys() == [KEY]
    house.freeze()
    assert house.ready_keys() == []
    house.put(photographs(5))  # the same content, written again
    house.take_in()
    assert house.ready_keys() == []
    house.put({"new.jpg": small(20)})
    assert house.ready_keys() == [KEY]
    house.take_in()
    assert house.ready_keys() == [KEY]


def test_a_new_file_that_is_no_image_makes_nothing_ready_once_it_is_known(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    house.freeze()
    house.put({"text.jpg": b"no photograph"})
    house.take_in()
    assert house.ready_keys() == []


def test_arrivals_that_were_no_good_make_no_training(house: House) -> None:
    house.put({**photographs(6), **{f"text-{number}.jpg": b"no photograph" for number in range(4)}})
    assert house.ready_keys(ready_images=10) == [KEY]
    house.take_in()
    assert house.ready_keys(ready_images=10) == []

    def why_now(ready_images: int) -> str | None:
        return why_draft_ready(
            house.database, KEY, ready_images=ready_images, ready_quiet=QUIET, now=house.now
        )

    assert why_now(10) is None
    assert why_now(6) == "enough images and quiet"
    house.freeze()
    assert why_now(6) is None


def test_a_set_that_was_asked_for_is_ready_at_once_and_only_until_it_is_answered(house: House) -> None:
    house.put(photographs(4))
    house.take_in()
    house.now = datetime.now(UTC)
    assert house.ready_keys() == []
    ask_for_training(house.database, KEY, actor="maria", now=house.now)
    (ready,) = house.ready().ready
    assert ready.reason == "asked for"
    with pytest.raises(SetBlocked):
        house.freeze()
    assert house.ready_keys() == []


def test_asking_for_an_unknown_model_is_refused(house: House) -> None:
    with pytest.raises(IntakeError, match="no model 'nobody'"):
        ask_for_training(house.database, "nobody", actor="maria", now=house.now)


def test_a_blocked_set_waits_for_something_new(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    with pytest.raises(SetBlocked):
        house.freeze(zip_limit_bytes=1000)
    assert house.ready_keys() == []
    house.put({"new.jpg": small(20)})
    assert house.ready_keys() == [KEY]


@pytest.mark.parametrize(("state", "ready"), [("running", False), ("held", False), ("finalised", True)])
def test_a_model_in_training_is_left_alone(house: House, state: str, ready: bool) -> None:
    house.put(photographs(5))
    house.take_in()
    add_run(house.database, house.freeze().image_set_id, state=state)
    house.put({"new.jpg": small(20)})
    assert (house.ready_keys() == [KEY]) is ready


# Trouble


def test_an_unreachable_inbox_stops_no_draft(house: House) -> None:
    house.put(photographs(5))
    house.take_in()
    # Nothing listens on port 1.
    env = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    house.inbox = open_store("s3://inbox/new", endpoint_url="http://127.0.0.1:1", env=env)
    readiness = house.ready()
    assert [model.model_key for model in readiness.ready] == [KEY]
    (problem,) = readiness.problems
    assert "s3://inbox/new" in problem


def test_a_folder_that_names_no_model_stops_no_other(house: House) -> None:
    house.put(photographs(5), "Maria Müller")
    house.put(photographs(5))
    readiness = house.ready()
    assert [model.model_key for model in readiness.ready] == [KEY]
    assert "Maria Müller" in readiness.problems[0]
    assert "Rename it" in readiness.problems[0]


def test_files_outside_folders_and_captions_alone_are_no_arrivals(house: House) -> None:
    house.inbox.put_bytes("stray.jpg", small(1))
    house.put({"a.txt": b"x", "model.toml": b""})
    assert list(new_arrivals(house.database, house.inbox)) == []
    assert [folder.model_key for folder in scan_inbox(house.inbox)] == [KEY]


def test_files_in_folders_below_belong_to_the_model(house: House) -> None:
    house.put({"day 1/a.jpg": small(1), "day 1/a.txt": b"caption", "day 2/a.jpg": small(2)})
    report = house.take_in()
    assert [file.name for file in report.files] == ["day 1/a.jpg", "day 2/a.jpg"]


# Cost


def test_the_number_of_queries_does_not_grow_with_the_number_of_models(house: House) -> None:
    def queries() -> int:
        statements: list[str] = []

        def note(*arguments: object) -> None:
            statements.append(str(arguments[2]))

        event.listen(house.database.engine, "before_cursor_execute", note)
        try:
            ready_models(house.database, house.inbox, ready_images=5, ready_quiet=QUIET, now=house.now)
        finally:
            event.remove(house.database.engine, "before_cursor_execute", note)
        return len(statements)

    for number in range(2):
        house.put({"a.jpg": small(number)}, f"m{number}")
        house.take_in(f"m{number}")
    few = queries()
    for number in range(2, 30):
        house.put({"a.jpg": b"x"}, f"m{number}")
    assert queries() <= few + 2
    assert few < 10


def test_nothing_is_read_to_know_who_is_ready(house: House) -> None:
    class NeverRead(LocalObjectStore):
        def stream(self, key: str, chunk_size: int = 0) -> Iterator[bytes]:
            raise AssertionError(f"a listing is enough, {key} was read")

    house.put(photographs(5))
    house.inbox = NeverRead(folder_of(house.inbox))
    assert house.ready_keys() == [KEY]
