"""Hints of webhooks, handled without the HTTP server: what is asked, what is not, and what waits."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import WebhookDelivery
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.protocol import JobState
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.cancelling import cancel_training
from lora_pipeline.trainings.finishing import follow_and_find_work
from lora_pipeline.trainings.hints import handle_hints, worth_asking
from lora_pipeline.trainings.lifecycle import TrainingState, next_state
from lora_pipeline.trainings.webhooks import Delivery, SigningSecret, store_delivery
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run
from lora_pipeline_tests.trainings.steps import job_of, set_run, state_of, submitted_run

JOB_STATES = {
    "starting": JobState.QUEUED,
    "processing": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "canceled": JobState.CANCELED,
    "aborted": JobState.ABORTED,
    "dreaming": JobState.UNKNOWN,
}


def hint(database: Database, clock: Clock, job_id: str, status: str, delivery_id: str = "msg_1") -> bool:
    return store_delivery(database, "replicate", Delivery(delivery_id, job_id, status, "0" * 64), clock())


def waiting(database: Database) -> int:
    with database.read() as session:
        return session.query(WebhookDelivery).filter_by(handled_at=None).count()


@given(st.sampled_from(TrainingState), st.sampled_from(sorted(JOB_STATES)))
def test_whatever_could_move_a_training_is_worth_asking_about(state: TrainingState, status: str) -> None:
    if next_state(state, JOB_STATES[status]) is not None:
        assert worth_asking(state, status)


def test_a_hint_is_checked_with_the_provider_and_not_believed(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    assert hint(database, clock, job_of(database, run_id), "succeeded")
    assert not hint(database, clock, job_of(database, run_id), "succeeded")
    report = handle_hints(database, provider, clock, 10)
    assert (report.handled, report.asked, report.moved) == (1, 1, ())
    assert (state_of(database, run_id), waiting(database)) == ("submitted", 0)


def test_hints_of_another_provider_are_left_to_its_own_tick(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    add_packed_run(database, store, provider="runpod", state="running", training_id="job-u1")
    assert store_delivery(database, "runpod", Delivery("msg_1", "job-u1", "COMPLETED", "0" * 64), clock())
    report = handle_hints(database, provider, clock, 10)
    assert (report.handled, report.asked, report.unknown) == (0, 0, ())
    assert waiting(database) == 1


def test_many_hints_about_one_training_are_one_question(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    job_id = job_of(database, run_id)
    simulator.end(job_id)
    for number, status in enumerate(["processing", "starting", "succeeded", "succeeded"]):
        hint(database, clock, job_id, status, f"msg_{number}")
    report = handle_hints(database, provider, clock, 10)
    assert (report.handled, report.asked, len(report.moved)) == (4, 1, 1)
    assert state_of(database, run_id) == "succeeded"


def test_what_an_outage_or_the_limit_leaves_over_waits(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    runs = [submitted_run(database, store, provider, f"user-{number}") for number in range(3)]
    for number, run_id in enumerate(runs):
        simulator.end(job_of(database, run_id))
        hint(database, clock, job_of(database, run_id), "succeeded", f"msg_{number}")
    simulator.fault("trainings.get", "answer", status=502, times=3)
    report = handle_hints(database, provider, clock, 10)
    assert (report.asked, len(report.errors), waiting(database)) == (1, 1, 3)
    assert handle_hints(database, provider, clock, 2).handled == 2
    assert handle_hints(database, provider, clock, 2, deadline=clock()).asked == 0
    assert handle_hints(database, provider, clock, 2).handled == 1
    assert {state_of(database, run_id) for run_id in runs} == {"succeeded"}


def test_a_hint_about_a_training_that_the_provider_does_not_show_decides_nothing(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run_id = submitted_run(database, store, provider)
    hint(database, clock, job_of(database, run_id), "succeeded")
    simulator.fault("trainings.get", "answer", status=404)
    assert handle_hints(database, provider, clock, 10).handled == 1
    assert state_of(database, run_id) == "submitted"


def test_an_unknown_job_is_said_once_and_matched_when_a_run_has_it(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_id = submitted_run(database, store, provider)
    job_id = job_of(database, run_id)
    set_run(database, run_id, training_id=None)
    simulator.end(job_id)
    hint(database, clock, job_id, "succeeded")
    assert handle_hints(database, provider, clock, 10).unknown == (job_id,)
    assert handle_hints(database, provider, clock, 10).unknown == ()
    assert caplog.text.count(f"Version not found for job ID: {job_id}") == 1
    set_run(database, run_id, training_id=job_id)
    assert handle_hints(database, provider, clock, 10).handled == 1
    assert state_of(database, run_id) == "succeeded"


def test_the_status_tick_does_what_the_server_did_not(
    database: Database,
    database_address: str,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    tmp_path: Path,
) -> None:
    ended, cancelled = (submitted_run(database, store, provider, key) for key in ("user-1", "user-2"))
    simulator.end(job_of(database, ended))
    hint(database, clock, job_of(database, ended), "succeeded")
    simulator.fault("trainings.cancel", "drop")
    cancel_training(database, provider, cancelled, "cli:ada", clock)
    connections = Connections(
        Settings(
            home=tmp_path / "home",
            database_url=database_address,
            replicate_base_url=simulator.url,
            replicate_api_token="r8_test",
            tick_budget=timedelta(seconds=40),
        )
    )
    follow_and_find_work(connections)
    assert (state_of(database, ended), state_of(database, cancelled)) == ("succeeded", "canceled")
    assert waiting(database) == 0
    assert simulator.requests()["trainings.get"] <= 1, "the list had answered the hint already"
    connections.database.close()


def test_webhooks_are_asked_for_only_where_the_provider_can_reach_us(tmp_path: Path) -> None:
    def url(public: str | None) -> str | None:
        return (
            Connections(Settings(home=tmp_path, public_url=public))
            .start_rules("replicate")
            .submission.webhook
        )

    assert url("https://lora.example/") == "https://lora.example/webhooks/replicate"
    assert url("http://lora.example") is None
    assert url(None) is None


def test_a_changed_signing_secret_is_noticed_and_forgers_cannot_make_us_ask() -> None:
    moment, asked = [1000.0], [0]

    def ask() -> str:
        asked[0] += 1
        return "whsec_old" if asked[0] < 3 else "whsec_new"

    secret = SigningSecret(ask, monotonic=lambda: moment[0])
    assert secret.current() == secret.current() == "whsec_old"
    assert secret.changed() is None
    assert asked == [1]
    moment[0] += 301
    assert secret.changed() is None
    moment[0] += 301
    assert secret.changed() == secret.current() == "whsec_new"
    assert SigningSecret(ask, "whsec_given").changed() is None


def test_a_signing_secret_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    for wrong in ("r8_wrong", "whsec_", "whsec_abcde", "whsec_ab-_"):
        with pytest.raises(ValueError, match="expected whsec_"):
            Settings(home=tmp_path, replicate_webhook_secret=wrong)
