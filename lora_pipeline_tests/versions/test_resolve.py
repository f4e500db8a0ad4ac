"""Resolve: the right answer from the database, and one bounded check at the first call of a deployment."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event, Lock
from typing import Any

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ResolveCheck, User, UserModel
from lora_pipeline.objects import ObjectStore, open_store
from lora_pipeline.providers.protocol import ProviderUnavailable
from lora_pipeline.versions import first_call
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.first_call import Check, CheckRules
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.pinning import Chooser, activate_version
from lora_pipeline.versions.resolve import NothingServed, ResolvedVersion, resolve_version
from lora_pipeline_tests.fixtures.pipeline import Clock, add_model
from lora_pipeline_tests.versions.registered import add_version, provider_version, version_hash

KEY = "user-50c"
RULES = CheckRules("release 1", budget=timedelta(seconds=20))
SHORT = CheckRules("release 1", budget=timedelta(milliseconds=50))
S3_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


class Checks:
    """A check that counts its calls and answers as it is told."""

    def __init__(self, answer: Verdict | Exception = Verdict.UP_TO_DATE) -> None:
        self.answer = answer
        self.calls = 0
        self._lock = Lock()

    def __call__(self, model_key: str) -> Verdict:
        with self._lock:
            self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ask(
    database: Database, store: ObjectStore, check: Check | None, rules: CheckRules = RULES, **more: Any
) -> ResolvedVersion:
    return resolve_version(database, store, more.pop("model", KEY), rules, check=check, **more)


def test_the_answer_has_every_form_that_an_application_needs(database: Database) -> None:
    add_version(database, KEY, 1)
    store = open_store("s3://loras", env=S3_KEYS)
    found = ask(database, store, Checks())
    assert (found.version, found.provider_version) == (1, provider_version(KEY, 1))
    assert found.prediction_version == version_hash(KEY, 1)
    assert (found.trigger_word, found.lora_scale, found.weights_state) == ("user50c", 1.0, "verified")
    assert (found.stale, found.verdict, found.pinned) == (False, "up_to_date", False)


def test_weights_in_our_bucket_are_signed_for_an_hour_and_never_shown(
    sqlite_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    add_version(sqlite_database, KEY, 1)
    with caplog.at_level("DEBUG"):
        found = ask(sqlite_database, open_store("s3://loras", env=S3_KEYS), Checks())
    assert found.weights_url is not None
    assert "X-Amz-Signature=" in found.weights_url
    assert "X-Amz-Expires=3600" in found.weights_url
    assert found.weights_expire_at is not None
    assert "X-Amz" not in repr(found) + caplog.text


def test_weights_elsewhere_are_given_as_they_are_stored(
    sqlite_database: Database, store: ObjectStore
) -> None:
    delivered = "https://replicate.delivery/xezq/abc/trained_model.tar"
    add_version(sqlite_database, "user-1", 1, weights_url=delivered)
    add_version(sqlite_database, "user-2", 1, weights_url=store.address("loras/2.safetensors"))
    assert ask(sqlite_database, store, None, model="user-1").weights_url == delivered
    local = ask(sqlite_database, store, None, model="user-2")
    assert (local.weights_url, local.weights_expire_at) == (store.address("loras/2.safetensors"), None)


def test_a_model_is_found_by_every_name_it_has(database: Database, store: ObjectStore) -> None:
    add_version(database, "user-7", 1)
    with database.begin() as session:
        session.get_one(User, "user-7").email = "Ana@example.org"
    for name in ("user-7", " user-7 ", "ana@example.org", "acme/user-7-selfie-lora", "user-7-selfie-lora"):
        assert ask(database, store, None, model=name).model_key == "user-7"


def test_a_hand_written_row_works_at_once_and_is_not_guessed_to_be_current(
    database: Database, store: ObjectStore
) -> None:
    add_model(
        database,
        KEY,
        replicate_model_id="acme/user-50c-selfie-lora",
        replicate_version_id=f"user-50c-selfie-lora:{version_hash(KEY, 1)}",
        lora_weights_url="https://replicate.delivery/xezq/abc/trained_model.tar",
        training_status="completed",
    )
    found = ask(database, store, None)
    assert (found.version, found.prediction_version) == (None, version_hash(KEY, 1))
    assert found.stale


def test_a_row_that_was_changed_past_the_history_is_served_with_that_versions_weights(
    database: Database, store: ObjectStore
) -> None:
    add_version(database, KEY, 1)
    add_version(database, KEY, 2)
    with database.begin() as session:
        session.query(UserModel).one().replicate_version_id = version_hash(KEY, 1)
    found = ask(database, store, None)
    assert (found.version, found.weights_url) == (1, f"s3://loras/{KEY}/1.safetensors")


def test_what_was_never_trained_or_does_not_exist_is_an_error_that_helps(
    database: Database, store: ObjectStore
) -> None:
    add_model(database, "user-new")
    with pytest.raises(NothingServed, match="lora-pipeline why user-new"):
        ask(database, store, Checks(), model="user-new")
    with pytest.raises(ModelNotFound):
        ask(database, store, Checks(), model="nobody")


def test_the_first_call_of_each_deployment_checks_and_no_other(
    database: Database, store: ObjectStore, clock: Clock
) -> None:
    add_version(database, KEY, 1)
    check = Checks()
    for _ in range(3):
        found = ask(database, store, check, clock=clock)
        assert (found.stale, found.checked_at) == (False, clock())
    assert check.calls == 1
    assert not ask(database, store, check, CheckRules("release 2", RULES.budget)).stale
    assert check.calls == 2


def test_what_the_check_repairs_is_in_the_same_answer(database: Database, store: ObjectStore) -> None:
    add_version(database, KEY, 1)

    def repair(model_key: str) -> Verdict:
        add_version(database, model_key, 2)
        return Verdict.UP_TO_DATE

    found = ask(database, store, repair)
    assert (found.version, found.stale) == (2, False)


def test_a_model_that_serves_nothing_yet_may_be_repaired_by_its_first_call(
    database: Database, store: ObjectStore
) -> None:
    add_model(database, KEY, replicate_model_id="acme/user-50c-selfie-lora", training_status="completed")

    def repair(model_key: str) -> Verdict:
        add_version(database, model_key, 1)
        return Verdict.UP_TO_DATE

    assert ask(database, store, repair).version == 1


@pytest.mark.parametrize("answer", [ProviderUnavailable("no route to host"), Verdict.PROVIDER_ERROR])
def test_a_provider_that_is_down_leaves_the_last_known_good_marked_stale_and_is_asked_again_later(
    database: Database, store: ObjectStore, clock: Clock, answer: Verdict | Exception
) -> None:
    add_version(database, KEY, 1)
    check = Checks(answer)
    for _ in range(3):
        found = ask(database, store, check, clock=clock)
        assert (found.version, found.stale, found.checked_at) == (1, True, None)
    assert check.calls == 1, "an outage must not make every call slow"
    clock.advance(seconds=RULES.retry_after.total_seconds())
    check.answer = Verdict.UP_TO_DATE
    assert not ask(database, store, check, clock=clock).stale


def test_a_slow_check_costs_its_budget_once_and_is_written_down_when_it_ends(
    database: Database, store: ObjectStore
) -> None:
    add_version(database, KEY, 1)
    go_on, ended = Event(), Event()

    def slow(model_key: str) -> Verdict:
        assert go_on.wait(30)
        ended.set()
        return Verdict.UP_TO_DATE

    began = time.monotonic()
    assert ask(database, store, slow, SHORT).stale
    assert ask(database, store, slow, SHORT).stale, "the check is under way: nobody else waits for it"
    assert time.monotonic() - began < 10
    go_on.set()
    assert ended.wait(30)
    deadline = time.monotonic() + 30
    while ask(database, store, None, SHORT).stale:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_many_processes_that_ask_at_once_check_once(
    database_address: str, database: Database, store: ObjectStore
) -> None:
    add_version(database, KEY, 1)
    check = Checks()
    processes = [Database(database_address) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda process: ask(process, store, check), processes))
    for process in processes:
        process.close()
    assert check.calls == 1
    assert {one.version for one in found} == {1}


def test_a_writer_that_holds_the_database_does_not_hold_up_the_answer(
    database: Database, store: ObjectStore
) -> None:
    add_version(database, KEY, 1)
    began = time.monotonic()
    with database.begin() as session:
        session.add(ResolveCheck(model_id=1, asked_in="release 1", asked_at=Clock()()))
        session.flush()
        assert ask(database, store, Checks(), SHORT).stale
    assert time.monotonic() - began < 10


def test_where_too_many_checks_are_under_way_the_next_answers_without_one(
    sqlite_database: Database, store: ObjectStore
) -> None:
    add_version(sqlite_database, KEY, 1)
    check = Checks()
    for _ in range(first_call._AT_ONCE):
        assert first_call._slots.acquire(timeout=30)
    try:
        assert ask(sqlite_database, store, check).stale
    finally:
        for _ in range(first_call._AT_ONCE):
            first_call._slots.release()
    assert check.calls == 0
    assert not ask(sqlite_database, store, check).stale


@pytest.mark.parametrize("verdict", [Verdict.MODEL_NOT_FOUND, Verdict.BEHIND])
def test_an_answer_that_is_not_up_to_date_is_shown_and_settled_by_the_next_choice(
    database: Database, store: ObjectStore, clock: Clock, verdict: Verdict
) -> None:
    add_version(database, KEY, 1)
    add_version(database, KEY, 2)
    check = Checks(verdict)
    found = ask(database, store, check, clock=clock)
    assert (found.version, found.stale, found.verdict) == (2, True, verdict.value)
    clock.advance(minutes=1)
    activate_version(database, KEY, "V1", Chooser("t", "t", clock()))
    found = ask(database, store, check, clock=clock)
    assert (found.version, found.stale, found.pinned) == (1, False, True)
    assert check.calls == 1


def test_a_provider_without_versions_is_never_checked_nor_stale(
    sqlite_database: Database, store: ObjectStore
) -> None:
    add_version(sqlite_database, KEY, 1, provider="runpod", provider_version=None)
    check = Checks()
    found = ask(sqlite_database, store, check)
    assert (found.version, found.provider_version, found.stale, check.calls) == (1, None, False, 0)
