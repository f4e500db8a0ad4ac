"""Sync one model, end to end: real client, simulated provider, both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import UserModel
from lora_pipeline.identity import parse_version
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.submission import Submission, SubmissionRules, submit_training
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.formats import KNOWN_TRAINERS
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.pinning import Chooser, roll_back, unpin_model
from lora_pipeline.versions.provider_survey import SurveyRules, survey
from lora_pipeline.versions.settling import Settling, settle
from lora_pipeline.versions.sync import sync_model
from lora_pipeline.versions.sync_decisions import SyncOutcome
from lora_pipeline.versions.sync_targets import one_target
from lora_pipeline_tests.fixtures.pipeline import add_packed_run, run_row
from lora_pipeline_tests.versions.fleets import (
    add_served,
    audit,
    history,
    provider_model,
    push_versions,
    row,
    train_at_provider,
    versions,
)
from lora_pipeline_tests.versions.registered import add_version

KEY = "user-50c"


def sync(connections: Connections, key: str = KEY) -> SyncOutcome:
    return sync_model(connections, key, actor="test").outcome


def test_a_model_retrained_three_times_with_an_old_version_stored_is_synced(
    connections: Connections, simulator: RunningSimulator
) -> None:
    first, _, third = train_at_provider(simulator, KEY, times=3)
    add_served(connections.database, KEY, first["version"])

    result = sync_model(connections, KEY, actor="test")

    assert (result.outcome, result.update_needed) == (SyncOutcome.UPDATED, True)
    assert (result.drift.verdict, result.verdict) == (Verdict.BEHIND, Verdict.UP_TO_DATE)
    served = row(connections, KEY)
    weights = connections.replicate.get_training(third["training_id"]).output_weights
    assert served.replicate_version_id == third["version"] == result.current
    assert served.lora_weights_url == weights
    assert result.latest == third["version"]
    old, new = versions(connections, KEY)
    assert (old.provider_version, new.provider_version) == (first["version"], third["version"])
    assert (new.weights_state, new.weights_url, new.simulated) == ("unverified", weights, True)
    before, now = history(connections, KEY)
    assert (before.version_id, now.version_id) == (old.id, new.id)
    assert before.active_to == now.active_from
    assert now.active_to is None
    assert [entry.details["after"] for entry in audit(connections, "sync")] == [third["version"]]

    again = sync_model(connections, KEY, actor="test")
    assert (again.outcome, again.update_needed) == (SyncOutcome.UP_TO_DATE, False)
    assert len(history(connections, KEY)) == 2
    assert row(connections, KEY).updated_at == served.updated_at


@pytest.mark.parametrize(
    "spelling", ["{name}:{hash}", "{hash}", " {upper} ", "{model}:{model}:{hash}", "{page}"]
)
def test_a_spelling_of_the_latest_works_at_once(
    on_sqlite: Connections, simulator: RunningSimulator, spelling: str
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    model, _, digits = made["version"].partition(":")
    stored = spelling.format(
        name=model.partition("/")[2],
        hash=digits,
        upper=digits.upper(),
        model=model,
        page=f"https://replicate.com/{model}/versions/{digits}",
    )
    add_served(on_sqlite.database, KEY, stored)
    assert sync(on_sqlite) is SyncOutcome.UP_TO_DATE
    # The form that the provider's predictions take.
    assert parse_version(stored).for_predictions == digits


@pytest.mark.parametrize(
    ("stored", "verdict"),
    [
        (None, Verdict.MISSING_VERSION),
        ("925da5f5", Verdict.MALFORMED_VERSION),
        ("k8sy6bgx31rm80cr2cwbn2bqkw", Verdict.MALFORMED_VERSION),
        (KNOWN_TRAINERS[0].hash, Verdict.TRAINER_VERSION),
        (str(KNOWN_TRAINERS[1]), Verdict.TRAINER_VERSION),
    ],
)
def test_what_never_was_a_version_of_the_model_is_replaced(
    on_sqlite: Connections, simulator: RunningSimulator, stored: str | None, verdict: Verdict
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, stored)
    result = sync_model(on_sqlite, KEY, actor="test")
    assert (result.outcome, result.drift.verdict) == (SyncOutcome.UPDATED, verdict)
    assert row(on_sqlite, KEY).replicate_version_id == made["version"]
    assert len(versions(on_sqlite, KEY)) == 1


def test_weights_that_no_training_made_stay_unknown_and_are_never_built_from_the_hash(
    connections: Connections, simulator: RunningSimulator
) -> None:
    push_versions(simulator, KEY, "a" * 64, "b" * 64)
    add_served(connections.database, KEY, "a" * 64)
    result = sync_model(connections, KEY, actor="test")
    assert (result.outcome, result.weights) == (SyncOutcome.UPDATED, "unknown")
    assert result.verdict is Verdict.WEIGHTS_MISSING
    served = row(connections, KEY)
    assert served.replicate_version_id == f"{provider_model(KEY)}:{'b' * 64}"
    assert served.lora_weights_url is None
    assert versions(connections, KEY)[-1].weights_state == "missing"
    # What it served before is one rollback away, with the weights it had.
    assert versions(connections, KEY)[0].weights_url

    again = sync_model(connections, KEY, actor="test")
    assert again.outcome is SyncOutcome.FAILED
    assert "no training" in again.detail
    assert len(history(connections, KEY)) == 2


def test_missing_weights_of_the_latest_are_found_from_its_training(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, made["version"], lora_weights_url=None)
    result = sync_model(on_sqlite, KEY, actor="test")
    assert (result.outcome, result.drift.verdict) == (SyncOutcome.UPDATED, Verdict.WEIGHTS_MISSING)
    assert result.verdict is Verdict.UP_TO_DATE
    assert (
        row(on_sqlite, KEY).lora_weights_url
        == on_sqlite.replicate.get_training(made["training_id"]).output_weights
    )


def test_a_rollback_is_a_choice_that_a_sync_reports_and_leaves_alone(
    connections: Connections, simulator: RunningSimulator
) -> None:
    first, _ = train_at_provider(simulator, KEY, times=2)
    add_served(connections.database, KEY, first["version"])
    assert sync(connections) is SyncOutcome.UPDATED
    roll_back(connections.database, KEY, Chooser("a person", "the newer one squints", connections.now()))

    result = sync_model(connections, KEY, actor="test")
    assert (result.outcome, result.verdict) == (SyncOutcome.PINNED, Verdict.PINNED)
    assert (result.update_needed, result.current) == (False, first["version"])
    assert row(connections, KEY).replicate_version_id == first["version"]

    unpin_model(connections.database, KEY, Chooser("a person", "never mind", connections.now()))
    assert sync(connections) is SyncOutcome.UPDATED


@pytest.mark.parametrize(
    ("status", "words"), [(401, "Check REPLICATE_API_TOKEN"), (500, "asked again"), (404, "knows nothing")]
)
def test_trouble_at_the_provider_changes_nothing_and_says_what_it_is(
    on_sqlite: Connections, simulator: RunningSimulator, status: int, words: str
) -> None:
    first, _ = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    simulator.fault("models.versions.list", "answer", status=status, times=9)
    result = sync_model(on_sqlite, KEY, actor="test")
    assert result.outcome is SyncOutcome.FAILED
    assert result.update_needed is None
    assert words in result.detail
    assert row(on_sqlite, KEY).replicate_version_id == first["version"]
    assert history(on_sqlite, KEY) == []


def test_a_list_that_cannot_be_read_does_not_make_weights_unknown(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, _ = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    simulator.fault("trainings.list", "answer", status=500, times=9)
    result = sync_model(on_sqlite, KEY, actor="test")
    assert result.outcome is SyncOutcome.FAILED
    assert row(on_sqlite, KEY).replicate_version_id == first["version"]


def test_a_throttling_provider_is_waited_for_as_long_as_it_asks(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, second = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    simulator.fault("models.versions.list", "answer", status=429, retry_after=7, times=1)
    waits: list[float] = []
    result = sync_model(on_sqlite, KEY, actor="test", sleep=waits.append)
    assert (result.outcome, waits) == (SyncOutcome.UPDATED, [7.0])
    assert row(on_sqlite, KEY).replicate_version_id == second["version"]

    simulator.fault("models.versions.list", "answer", status=429, retry_after=200, times=1)
    assert sync_model(on_sqlite, KEY, actor="test", sleep=waits.append).verdict is Verdict.PROVIDER_ERROR
    assert waits == [7.0]


def test_planning_says_what_would_change_and_changes_nothing(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, second = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    result = sync_model(on_sqlite, KEY, actor="test", apply=False)
    assert (result.outcome, result.update_needed) == (SyncOutcome.PLANNED, True)
    assert (result.current, result.latest) == (first["version"], second["version"])
    assert row(on_sqlite, KEY).replicate_version_id == first["version"]


@pytest.mark.parametrize("stored_model", ["training id", None])
def test_a_training_id_where_the_model_should_stand_is_understood(
    on_sqlite: Connections, simulator: RunningSimulator, stored_model: str | None
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(
        on_sqlite.database,
        KEY,
        None,
        replicate_model_id=made["training_id"] if stored_model else None,
        training_id=made["training_id"],
    )
    assert sync(on_sqlite) is SyncOutcome.UPDATED
    served = row(on_sqlite, KEY)
    assert (served.replicate_model_id, served.replicate_version_id) == (provider_model(KEY), made["version"])


def test_a_model_nobody_can_tell_is_an_error(on_sqlite: Connections) -> None:
    add_served(on_sqlite.database, KEY, "a" * 64, replicate_model_id="nonsense", training_id=None)
    result = sync_model(on_sqlite, KEY, actor="test")
    assert (result.outcome, result.verdict) == (SyncOutcome.FAILED, Verdict.MALFORMED_MODEL_ID)


def test_a_model_that_was_never_trained_has_nothing_to_sync(on_sqlite: Connections) -> None:
    add_served(on_sqlite.database, KEY, None, training_status="failed", replicate_model_id=None)
    assert sync(on_sqlite) is SyncOutcome.NEVER_TRAINED


def test_a_model_without_versions_is_an_error(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    simulator.control("versions", models={provider_model(KEY): []})
    add_served(on_sqlite.database, KEY, "a" * 64)
    assert sync_model(on_sqlite, KEY, actor="test").verdict is Verdict.NO_VERSIONS


def test_a_version_registered_with_another_model_is_not_taken_from_it(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, _ = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    add_served(on_sqlite.database, "twin", first["version"], replicate_model_id=provider_model(KEY))
    assert sync(on_sqlite) is SyncOutcome.UPDATED
    result = sync_model(on_sqlite, "twin", actor="test")
    assert result.outcome is SyncOutcome.CHANGED
    assert "another model" in result.detail
    assert row(on_sqlite, "twin").replicate_version_id == first["version"]


def test_two_versions_in_the_same_database_never_share_a_number(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, _ = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, first["version"])
    sync(on_sqlite)
    train_at_provider(simulator, KEY)
    sync(on_sqlite)
    assert [one.number for one in versions(on_sqlite, KEY)] == [1, 2, 3]


def submit(connections: Connections, key: str = KEY) -> int:
    """A training of ours, submitted; the run's id."""
    run_id = add_packed_run(connections.database, connections.store, key)
    rules = SubmissionRules(DailyCaps(50, 200.0), lease=timedelta(minutes=5))
    database, store, provider = connections.database, connections.store, connections.replicate
    assert submit_training(database, store, provider, run_id, rules).outcome is Submission.SUBMITTED
    return run_id


def test_a_version_of_our_own_training_is_verified_before_it_is_served(
    connections: Connections, simulator: RunningSimulator
) -> None:
    (old,) = train_at_provider(simulator, KEY)
    add_served(connections.database, KEY, old["version"])
    run_id = submit(connections)
    simulator.advance(7200)

    result = sync_model(connections, KEY, actor="test")

    assert (result.outcome, result.verdict) == (SyncOutcome.UPDATED, Verdict.UP_TO_DATE)
    run = run_row(connections.database, run_id)
    assert (run.state, run.output_version) == ("finalised", result.current)
    (version,) = [one for one in versions(connections, KEY) if one.training_run_id == run_id]
    assert version.weights_state == "verified"
    assert row(connections, KEY).lora_weights_url == version.weights_url


def test_a_version_of_ours_that_was_refused_is_not_brought_in(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    (old,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, old["version"])
    run_id = submit(on_sqlite)
    training = str(run_row(on_sqlite.database, run_id).training_id)
    simulator.control(f"trainings/{training}/quirks", weights="not_finite")
    simulator.advance(7200)
    first = sync_model(on_sqlite, KEY, actor="test")
    assert first.outcome is SyncOutcome.FINALISING, first
    assert run_row(on_sqlite.database, run_id).state == "held", first
    second = sync_model(on_sqlite, KEY, actor="test")
    assert (second.outcome, second.update_needed) == (SyncOutcome.HELD, True)
    assert f"trainings show {run_id}" in second.detail
    assert row(on_sqlite, KEY).replicate_version_id == old["version"]


def test_what_somebody_changed_after_it_was_read_is_not_overwritten(
    connections: Connections, simulator: RunningSimulator
) -> None:
    first, second, third = train_at_provider(simulator, KEY, times=3)
    model_id = add_served(connections.database, KEY, first["version"])
    with connections.database.read() as session:
        target = one_target(session, model_id, KNOWN_TRAINERS)
    found = survey(connections.replicate, [target], SurveyRules(), Patience(0), connections.now)
    with connections.database.begin() as session:
        session.get_one(UserModel, model_id).replicate_version_id = second["version"]

    (result,) = settle(connections, [target], found, Settling("test"))

    assert (result.outcome, result.latest) == (SyncOutcome.CHANGED, third["version"])
    assert row(connections, KEY).replicate_version_id == second["version"]
    assert versions(connections, KEY) == []


def test_a_model_of_a_provider_without_versions_says_that_there_is_nothing_to_compare(
    on_sqlite: Connections,
) -> None:
    add_version(on_sqlite.database, KEY, 1, provider="runpod", provider_version=None)
    with pytest.raises(ModelNotFound, match="no list of versions"):
        sync(on_sqlite)
