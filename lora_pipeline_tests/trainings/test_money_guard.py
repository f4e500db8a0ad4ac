"""What a submission does before and after the provider says something about money, over real HTTP on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from lora_pipeline.database.sessions import Database
from lora_pipeline.objects import ObjectStore
from lora_pipeline.providers.protocol import ProviderError, ProviderUnavailable, Refused, Unauthenticated
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.controls import resume_submissions, submission_switch
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import Submission, SubmissionRules, submit_training
from lora_pipeline_tests.fixtures.pipeline import Clock, add_packed_run, run_row
from lora_pipeline_tests.fixtures.s3 import start_s3_server
from lora_pipeline_tests.trainings.steps import GRACE, RULES, follow, unknown_run


class PassesForReal(ReplicateProvider):
    """The simulator, taken for a provider that bills: what the money guard is about."""

    simulated = False


@pytest.fixture
def billing(simulator: RunningSimulator) -> ReplicateProvider:
    return PassesForReal(simulator.url, "r8_test", timeout=5.0)


def _caps(trainings: int = 50, usd: float = 200.0) -> SubmissionRules:
    return SubmissionRules(DailyCaps(trainings, usd), lease=timedelta(minutes=5))


def test_the_daily_number_is_kept_and_the_rest_waits_for_tomorrow(
    database: Database,
    store: ObjectStore,
    billing: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    clock.moment = clock.moment.replace(hour=9)
    runs = [add_packed_run(database, store, f"m{n}", simulated=False) for n in range(3)]
    outcomes = [
        submit_training(database, store, billing, run, _caps(trainings=2), clock=clock).outcome
        for run in runs
    ]
    assert outcomes == [Submission.SUBMITTED, Submission.SUBMITTED, Submission.DEFERRED]
    waiting = run_row(database, runs[2])
    assert waiting.state == "packed"
    assert "the cap is 2" in str(waiting.hold_reason)
    clock.advance(hours=12)
    again = submit_training(database, store, billing, runs[2], _caps(trainings=2), clock=clock)
    assert again.outcome is Submission.TAKEN, "not before tomorrow"
    clock.advance(hours=6)
    tomorrow = submit_training(database, store, billing, runs[2], _caps(trainings=2), clock=clock)
    assert tomorrow.outcome is Submission.SUBMITTED
    assert simulator.paid()["count"] == 3


def test_the_daily_money_is_kept(
    database: Database, store: ObjectStore, billing: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(database, store, simulated=False, estimated_cost=2.75)
    result = submit_training(database, store, billing, run, _caps(usd=2.0))
    assert result.outcome is Submission.DEFERRED
    assert "LORA_DAILY_COST_CAP" in str(result.reason)
    assert simulator.paid()["count"] == 0


def test_simulated_trainings_cost_nothing_of_the_day(
    database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(database, store)
    assert submit_training(database, store, provider, run, _caps(trainings=0)).outcome is Submission.SUBMITTED


def test_a_simulated_training_takes_no_place_of_the_day_from_a_real_one(
    database: Database, store: ObjectStore, provider: ReplicateProvider, billing: ReplicateProvider
) -> None:
    simulated = add_packed_run(database, store, "m1", estimated_cost=2.75)
    real = add_packed_run(database, store, "m2", simulated=False, estimated_cost=2.75)
    rules = _caps(trainings=1, usd=3.0)
    for run, asked in ((simulated, provider), (real, billing)):
        assert submit_training(database, store, asked, run, rules).outcome is Submission.SUBMITTED


def test_what_was_opened_against_a_simulator_and_is_sent_for_real_counts(
    database: Database, store: ObjectStore, billing: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(database, store, simulated=True)
    result = submit_training(database, store, billing, run, _caps(trainings=0))
    assert result.outcome is Submission.DEFERRED
    assert simulator.paid()["count"] == 0


@pytest.mark.parametrize("database_address", ["postgresql"], indirect=True)
def test_who_looks_at_the_caps_waits_for_whoever_looks_at_them_already(
    database_address: str, store: ObjectStore, billing: ReplicateProvider, simulator: RunningSimulator
) -> None:
    """Two that looked side by side would both find room for one."""
    before = Database(database_address)
    impatient = Database(
        f"{database_address}&options=-c%20lock_timeout%3D200ms"
    )  # behind its socket's folder
    run = add_packed_run(before, store, simulated=False)
    with before.begin() as session:
        submission_switch(session, lock=True)
        with pytest.raises(OperationalError, match="lock timeout"):
            submit_training(impatient, store, billing, run, _caps())
    assert simulator.paid()["count"] == 0
    before.close()
    impatient.close()


def test_no_credit_pauses_every_submission_until_somebody_resumes(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    first, second = (add_packed_run(database, store, key) for key in ("m1", "m2"))
    simulator.settings(out_of_credit=True)
    assert (
        submit_training(database, store, provider, first, RULES, clock=clock).outcome is Submission.DEFERRED
    )
    simulator.settings(out_of_credit=False)
    stopped = submit_training(database, store, provider, second, RULES, clock=clock)
    assert stopped.outcome is Submission.DEFERRED
    assert "insufficient credit" in str(stopped.reason).lower()
    assert "trainings resume" in str(stopped.reason)
    resume_submissions(database, actor="ada", now=clock())
    clock.advance(minutes=1)
    for run in (first, second):
        assert (
            submit_training(database, store, provider, run, RULES, clock=clock).outcome
            is Submission.SUBMITTED
        )
    assert simulator.paid()["count"] == 2


class Interrupted(ReplicateProvider):
    """While it makes a destination, `meanwhile` happens."""

    meanwhile: Callable[[], object] | None = None

    def ensure_destination(self, destination: str, *, description: str) -> None:
        super().ensure_destination(destination, description=description)
        if self.meanwhile is not None:
            self.meanwhile()


@pytest.fixture
def interrupted(simulator: RunningSimulator) -> Interrupted:
    return Interrupted(simulator.url, "r8_test", timeout=5.0)


@pytest.fixture
def bucket() -> ObjectStore:
    """A store that presigns: nothing is written between the lease and the intent."""
    server = start_s3_server()
    return server.open(server.create_bucket())


def test_what_one_submitter_prepares_no_other_takes(
    database: Database,
    bucket: ObjectStore,
    interrupted: Interrupted,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(database, bucket)
    others: list[Submission] = []
    interrupted.meanwhile = lambda: others.append(
        submit_training(database, bucket, provider, run, RULES, clock=clock).outcome
    )
    result = submit_training(database, bucket, interrupted, run, RULES, clock=clock)
    assert (result.outcome, others) == (Submission.SUBMITTED, [Submission.TAKEN])
    assert simulator.paid()["count"] == 1


def test_who_was_overtaken_while_preparing_sends_nothing_although_nobody_knows_what_became_of_the_other(
    database: Database,
    bucket: ObjectStore,
    interrupted: Interrupted,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(database, bucket)

    def overtake() -> None:
        clock.moment += RULES.lease
        simulator.fault("trainings.create", "drop", moment="after")
        other = submit_training(database, bucket, provider, run, RULES, clock=clock)
        assert other.outcome is Submission.UNKNOWN

    interrupted.meanwhile = overtake
    result = submit_training(database, bucket, interrupted, run, RULES, clock=clock)
    assert result.outcome is Submission.TAKEN
    assert simulator.paid()["count"] == 1


@pytest.mark.parametrize("error", [ProviderUnavailable("away"), Refused("no")])
def test_what_comes_of_an_overtaken_submission_says_nothing_about_the_others(
    database: Database,
    bucket: ObjectStore,
    interrupted: Interrupted,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
    error: ProviderError,
) -> None:
    run = add_packed_run(database, bucket)

    def overtake() -> None:
        clock.moment += RULES.lease
        simulator.fault("trainings.create", "drop", moment="after")
        submit_training(database, bucket, provider, run, RULES, clock=clock)
        raise error

    interrupted.meanwhile = overtake
    submit_training(database, bucket, interrupted, run, RULES, clock=clock)
    row = run_row(database, run)
    assert (row.state, row.post_started_at) == ("intent", clock()), "it is looked for, and not sent again"


def test_who_lost_the_lease_to_one_that_still_prepares_sends_nothing(
    database: Database,
    bucket: ObjectStore,
    interrupted: Interrupted,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(database, bucket)
    other = Interrupted(simulator.url, "r8_test", timeout=5.0)

    def die() -> None:
        raise KeyboardInterrupt

    def overtake() -> None:
        clock.moment += RULES.lease
        other.meanwhile = die
        with pytest.raises(KeyboardInterrupt):
            submit_training(database, bucket, other, run, RULES, clock=clock)

    interrupted.meanwhile = overtake
    result = submit_training(database, bucket, interrupted, run, RULES, clock=clock)
    assert result.outcome is Submission.TAKEN
    assert simulator.paid()["count"] == 0


def test_what_was_sent_is_not_taken_from_who_works_on_it(
    database: Database, store: ObjectStore, provider: ReplicateProvider, clock: Clock
) -> None:
    run = add_packed_run(database, store)
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.SUBMITTED
    before = run_row(database, run).lease_token
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.TAKEN
    assert run_row(database, run).lease_token == before


def test_a_throttled_creation_waits_as_long_as_it_was_told_and_is_sent_once(
    database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = add_packed_run(database, store)
    simulator.fault("trainings.create", "answer", status=429, retry_after=20)
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.DEFERRED
    assert run_row(database, run).post_started_at is None, "it takes no place of the day"
    clock.advance(seconds=15)
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.TAKEN
    clock.advance(seconds=10)
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.SUBMITTED
    assert simulator.paid()["count"] == 1


def test_a_name_that_can_never_be_ours_fails_the_training_clearly(
    database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(database, store)
    simulator.control("models/acme/user-50c-selfie-lora/burn")
    result = submit_training(database, store, provider, run, RULES)
    assert result.outcome is Submission.REFUSED
    row = run_row(database, run)
    assert row.state == "failed"
    assert "acme/user-50c-selfie-lora" in str(row.error)


def test_a_creation_that_is_refused_fails_the_training_and_takes_no_place_of_the_day(
    database: Database, store: ObjectStore, billing: ReplicateProvider, simulator: RunningSimulator
) -> None:
    first, second = (add_packed_run(database, store, key, simulated=False) for key in ("m1", "m2"))
    simulator.fault("trainings.create", "answer", status=422)
    outcomes = [
        submit_training(database, store, billing, run, _caps(trainings=1)).outcome for run in (first, second)
    ]
    assert outcomes == [Submission.REFUSED, Submission.SUBMITTED]
    assert run_row(database, first).state == "failed"


def test_a_wrong_token_leaves_the_training_packed(
    database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(database, store)
    assert provider.simulated
    simulator.settings(api_token="r8_other")
    with pytest.raises(Unauthenticated):
        submit_training(database, store, provider, run, RULES)
    row = run_row(database, run)
    assert (row.state, row.post_started_at) == ("packed", None)


@pytest.mark.parametrize("fault", ["drop", "answer", "hang"])
@pytest.mark.parametrize("landed", [True, False])
def test_an_unclear_answer_is_settled_by_the_token_or_held(
    sqlite_database: Database,
    store: ObjectStore,
    simulator: RunningSimulator,
    clock: Clock,
    fault: str,
    landed: bool,
) -> None:
    provider = ReplicateProvider(simulator.url, "r8_test", timeout=1.0)
    database = sqlite_database
    run = add_packed_run(database, store)
    provider.ensure_destination("acme/user-50c-selfie-lora", description="test")
    simulator.fault("trainings.create", fault, moment="after" if landed else "before", status=502)
    assert submit_training(database, store, provider, run, RULES, clock=clock).outcome is Submission.UNKNOWN
    follow(database, provider, clock)
    assert run_row(database, run).state == ("submitted" if landed else "intent")
    clock.advance(seconds=GRACE.total_seconds() + 60)
    follow(database, provider, clock)
    row = run_row(database, run)
    assert row.state == ("submitted" if landed else "held")
    assert simulator.paid()["count"] == int(landed)
    if not landed:
        assert "trainings resolve" in str(row.hold_reason)


def test_a_list_that_cannot_be_read_holds_nothing(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = unknown_run(sqlite_database, store, provider, simulator, landed=True)
    simulator.fault("trainings.list", "answer", status=500, times=20)
    clock.advance(seconds=GRACE.total_seconds() * 10)
    report = follow_trainings(
        sqlite_database, provider, FollowRules(timedelta(seconds=40), ReconcileRules(GRACE)), clock=clock
    )
    assert not report.reached_provider
    assert run_row(sqlite_database, run).state == "intent"


def test_a_training_that_lists_late_is_adopted_even_from_held(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    simulator.settings(list_lag_s=3600.0)
    run = unknown_run(sqlite_database, store, provider, simulator, landed=True)
    clock.advance(seconds=GRACE.total_seconds() + 60)
    follow(sqlite_database, provider, clock)
    assert run_row(sqlite_database, run).state == "held"
    simulator.settings(list_lag_s=0.0)
    follow(sqlite_database, provider, clock)
    assert run_row(sqlite_database, run).state == "submitted"
    assert simulator.paid()["count"] == 1


def test_sending_again_by_itself_is_opt_in(
    sqlite_database: Database,
    store: ObjectStore,
    provider: ReplicateProvider,
    simulator: RunningSimulator,
    clock: Clock,
) -> None:
    run = unknown_run(sqlite_database, store, provider, simulator, landed=False)
    rules = FollowRules(timedelta(seconds=40), ReconcileRules(GRACE, resubmit_after=timedelta(minutes=30)))
    clock.advance(minutes=31)
    follow_trainings(sqlite_database, provider, rules, clock=clock)
    assert run_row(sqlite_database, run).state == "packed"
    again = submit_training(sqlite_database, store, provider, run, RULES, clock=clock)
    assert again.outcome is Submission.SUBMITTED
    assert simulator.paid()["count"] == 1


def test_a_substituted_trainer_is_recorded_beside_the_requested_one(
    sqlite_database: Database, store: ObjectStore, provider: ReplicateProvider, simulator: RunningSimulator
) -> None:
    run = add_packed_run(sqlite_database, store)
    other = "26dce37af90b9d997eeb970d92e47de3064d46c300504ae376c75bef6a9022d2"
    simulator.fault("trainings.create", "quirk", quirk={"substituted_version": other})
    submit_training(sqlite_database, store, provider, run, RULES)
    row = run_row(sqlite_database, run)
    assert other in str(row.trainer_returned)
    assert other not in row.trainer_requested
