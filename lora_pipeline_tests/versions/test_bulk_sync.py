"""Bulk sync, end to end: few requests, whole updates, deliberate choices kept, trouble named model by model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter

import httpx
import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Activation, Base, ModelVersion, User, UserModel
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.versions import provider_survey
from lora_pipeline.versions.bulk_sync import (
    LEASE,
    AnotherAtWork,
    BulkOptions,
    BulkReport,
    _bulk_sync,
    bulk_sync,
)
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.patience import Patience
from lora_pipeline.versions.pinning import Chooser, pin_model, roll_back
from lora_pipeline.versions.provider_survey import FEW
from lora_pipeline.versions.sync_decisions import SyncOutcome
from lora_pipeline_tests.versions.fleets import (
    add_served,
    history,
    provider_model,
    push_versions,
    row,
    statements_on,
    train_at_provider,
    train_many_at_provider,
    versions,
)

MANY = FEW + 10
APPLY = BulkOptions(apply=True)


def run(connections: Connections, options: BulkOptions = APPLY) -> BulkReport:
    return bulk_sync(connections, options, actor="test", sleep=lambda _: None)


def fleet(
    connections: Connections, simulator: RunningSimulator, count: int = MANY
) -> tuple[dict[str, str], dict[str, str]]:
    """Models whose rows have the first of two versions: old and new version by key."""
    old = train_many_at_provider(simulator, count)
    for key, version in old.items():
        add_served(connections.database, key, version)
    simulator.advance(60)
    return old, train_many_at_provider(simulator, count)


def served(connections: Connections) -> dict[str, tuple[str | None, str | None]]:
    with connections.database.read() as session:
        return {
            model.model_key: (model.replicate_version_id, model.lora_weights_url)
            for model in session.query(UserModel)
        }


def weights_of(connections: Connections) -> dict[str, str]:
    """Version → weights, as the provider's list has them."""
    return {
        str(job.output_version): str(job.output_weights)
        for page in connections.replicate.list_trainings()
        for job in page.jobs
    }


def test_all_models_are_synced_from_the_list_alone(
    connections: Connections, simulator: RunningSimulator
) -> None:
    _, new = fleet(connections, simulator)
    simulator.control("requests/reset")
    report = run(connections)
    assert report.outcomes == {"updated": MANY}
    assert report.verdicts == {"up_to_date": MANY}
    assert simulator.requests().get("models.versions.list", 0) == 0
    assert simulator.requests()["trainings.list"] == 1 == report.requests
    weights = weights_of(connections)
    assert served(connections) == {key: (version, weights[version]) for key, version in new.items()}
    assert {one.weights_state for key in new for one in versions(connections, key)[1:]} == {"unverified"}

    again = run(connections)
    assert again.outcomes == {"up_to_date": MANY}
    assert again.results == ()
    assert all(len(history(connections, key)) == 2 for key in new)


def test_planning_changes_nothing_and_says_what_would_change(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    old, new = fleet(on_sqlite, simulator)
    before = served(on_sqlite)
    report = run(on_sqlite, BulkOptions())
    assert report.outcomes == {"planned": MANY}
    assert report.needing_sync == MANY
    assert {(result.current, result.latest) for result in report.results} == {
        (old[key], new[key]) for key in new
    }
    assert served(on_sqlite) == before


def test_a_filter_leaves_everybody_else_alone(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    old, new = fleet(on_sqlite, simulator)
    report = run(on_sqlite, BulkOptions(apply=True, only="m1*"))
    chosen = {key for key in new if key.startswith("m1")}
    assert report.models == len(chosen)
    assert {key: version for key, (version, _) in served(on_sqlite).items()} == {
        key: (new if key in chosen else old)[key] for key in new
    }


def test_a_pin_and_a_rollback_survive(connections: Connections, simulator: RunningSimulator) -> None:
    old, new = fleet(connections, simulator)
    run(connections)
    now = connections.now()
    pin_model(connections.database, "m0", Chooser("a person", "good", now))
    roll_back(connections.database, "m1", Chooser("a person", "squints", now))
    train_many_at_provider(simulator, 2)
    third = train_many_at_provider(simulator, 3)

    report = run(connections)

    assert report.outcomes == {"pinned": 2, "updated": 1, "up_to_date": MANY - 3}
    after = {key: version for key, (version, _) in served(connections).items()}
    assert (after["m0"], after["m1"], after["m2"]) == (new["m0"], old["m1"], third["m2"])


def test_two_at_once_do_no_harm(connections: Connections, simulator: RunningSimulator) -> None:
    _, new = fleet(connections, simulator)
    simulator.settings(latency_ms=50)
    ends: list[object] = []

    def work() -> None:
        try:
            ends.append(run(connections))
        except AnotherAtWork as error:
            ends.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert any(isinstance(end, BulkReport) for end in ends)
    assert {key: version for key, (version, _) in served(connections).items()} == new
    for key in new:
        open_ones = [one for one in history(connections, key) if one.active_to is None]
        assert len(open_ones) == 1
        assert len(history(connections, key)) == 2


def test_two_without_a_lease_between_them_do_no_harm_either(
    connections: Connections, simulator: RunningSimulator
) -> None:
    """A lease can run out under a slow process: the compare-and-set is what protects the rows."""
    _, new = fleet(connections, simulator)
    barrier = threading.Barrier(2)
    reports: list[BulkReport] = []

    def work() -> None:
        def say(text: str) -> None:
            if "to look at" in text:
                barrier.wait(10)

        reports.append(_bulk_sync(connections, APPLY, None, "test", say, Patience(0)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: version for key, (version, _) in served(connections).items()} == new
    assert all(len(history(connections, key)) == 2 for key in new)
    with connections.database.read() as session:
        assert session.query(ModelVersion).count() == 2 * MANY
    total = Counter[str]()
    for report in reports:
        total.update(report.outcomes)
    assert total["updated"] == MANY
    assert total["changed_meanwhile"] + total["up_to_date"] == MANY


def test_a_lease_that_another_holds_is_said_and_nothing_is_done(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    old, _ = fleet(on_sqlite, simulator)
    assert take_lease(on_sqlite.database, LEASE, on_sqlite.settings.lease, on_sqlite.now())
    with pytest.raises(AnotherAtWork, match="gives way within 5 minutes"):
        run(on_sqlite)
    assert {key: version for key, (version, _) in served(on_sqlite).items()} == old
    assert run(on_sqlite, BulkOptions()).outcomes == {"planned": MANY}


def test_a_provider_that_fails_half_way_leaves_each_model_old_or_new_and_says_which(
    connections: Connections, simulator: RunningSimulator
) -> None:
    old, new = fleet(connections, simulator)
    for n in range(MANY):
        # Nothing in the list tells about these: each is asked for by itself.
        push_versions(simulator, f"pushed{n}", "a" * 63 + str(n % 10), "b" * 63 + str(n % 10))
        stored = f"{provider_model(f'pushed{n}')}:{'a' * 63}{n % 10}"
        add_served(connections.database, f"pushed{n}", stored)
    simulator.fault("models.versions.list", "answer", status=502, body="html", match="pushed1", times=10_000)
    before = served(connections)

    report = run(connections)

    after, weights = served(connections), weights_of(connections)
    failed = {result.model_key for result in report.failures}
    assert {key for key in before if key.startswith("pushed1")} <= failed
    for result in report.failures:
        assert after[result.model_key] == before[result.model_key]
        assert result.verdict is Verdict.PROVIDER_ERROR
        assert result.update_needed is None
    for key in set(before) - failed:
        version, url = after[key]
        if key in new:
            assert (version, url) == (new[key], weights[new[key]])
        else:
            assert version == f"{provider_model(key)}:{'b' * 63}{int(key.removeprefix('pushed')) % 10}"
            assert url is None
    assert sum(report.outcomes.values()) == 2 * MANY
    assert old.keys() == new.keys()


def test_a_provider_that_is_down_is_not_asked_ten_thousand_times(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    for n in range(120):
        add_served(on_sqlite.database, f"m{n}", "a" * 64)
    simulator.fault("any", "answer", status=503, times=100_000)
    report = run(on_sqlite)
    assert report.outcomes == {"failed": 120}
    assert report.verdicts == {"provider_error": 120}
    assert report.requests < 40
    assert any("in a row" in result.detail for result in report.results)


def test_a_wrong_token_is_told_once_and_for_every_model(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    for n in range(40):
        add_served(on_sqlite.database, f"m{n}", "a" * 64)
    simulator.settings(api_token="r8_another")
    report = run(on_sqlite)
    assert report.verdicts == {"provider_error": 40}
    assert all("REPLICATE_API_TOKEN" in result.detail for result in report.results)
    assert report.requests < 12


def test_a_list_that_breaks_off_is_completed_by_asking(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    _, new = fleet(on_sqlite, simulator, count=150)
    simulator.control("requests/reset")
    simulator.fault("trainings.list", "cut_body", match="trainings", times=3)
    report = run(on_sqlite)
    assert report.outcomes == {"failed": 150}, "the weights of a version cannot be told without the list"
    report = run(on_sqlite)
    assert report.outcomes == {"updated": 150}
    assert {key: version for key, (version, _) in served(on_sqlite).items()} == new


def test_throttling_is_waited_for_and_the_list_is_taken_up_again(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    fleet(on_sqlite, simulator, count=120)
    simulator.fault("trainings.list", "answer", status=429, retry_after=9, times=1)
    waits: list[float] = []
    report = bulk_sync(on_sqlite, APPLY, actor="test", sleep=waits.append)
    assert (report.outcomes, waits) == ({"updated": 120}, [9.0])


def test_one_malformed_training_costs_nobody_else(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    _, new = fleet(on_sqlite, simulator)
    simulator.fault("trainings.list", "malformed_item", times=5)
    assert run(on_sqlite).outcomes == {"updated": MANY}
    assert {key: version for key, (version, _) in served(on_sqlite).items()} == new


def test_a_version_without_its_owner_in_the_list_is_asked_for(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    fleet(on_sqlite, simulator)
    made = simulator.control(
        "trainings", count=1, destination="m3-selfie-lora", quirk={"output": "bare_hash"}
    )
    simulator.end(made["trainings"][0]["id"])
    run(on_sqlite)
    # The list shows an older version of this model: only asking would tell, and that is what deep is for.
    report = run(on_sqlite, BulkOptions(apply=True, deep=True))
    assert [result.model_key for result in report.results if result.outcome is SyncOutcome.UPDATED] == ["m3"]


def test_a_version_that_we_moved_away_from_is_asked_for_before_it_is_served_again(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    """Its training stays in the list when a version is deleted at the provider."""
    old, new = fleet(on_sqlite, simulator)
    run(on_sqlite)
    with on_sqlite.database.begin() as session:
        model = session.query(UserModel).filter_by(model_key="m5").one()
        session.query(Activation).filter_by(model_id=model.id).delete()
        model.replicate_version_id = old["m5"]
    deleted = new["m5"].partition(":")[2]
    simulator.settings(deletion_s=0.0)
    httpx.delete(
        f"{simulator.url}/v1/models/{provider_model('m5')}/versions/{deleted}",
        headers={"Authorization": "Bearer r8_test"},
    ).raise_for_status()
    assert run(on_sqlite).outcomes == {"up_to_date": MANY}
    assert row(on_sqlite, "m5").replicate_version_id == old["m5"]


def test_a_pushed_version_newer_than_every_training_is_not_taken_back(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    _, new = fleet(on_sqlite, simulator)
    push_versions(simulator, "m7", "c" * 64)
    pushed = f"{provider_model('m7')}:{'c' * 64}"
    with on_sqlite.database.begin() as session:
        model = session.query(UserModel).filter_by(model_key="m7").one()
        model.replicate_version_id = pushed
        model.completed_at = on_sqlite.now().replace(year=2099)
    report = run(on_sqlite)
    assert report.outcomes == {"updated": MANY - 1, "up_to_date": 1}
    assert row(on_sqlite, "m7").replicate_version_id == pushed
    assert new


def test_a_deep_sync_asks_for_every_model_and_counts(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    fleet(on_sqlite, simulator)
    simulator.control("requests/reset")
    report = run(on_sqlite, BulkOptions(apply=True, deep=True))
    assert report.outcomes == {"updated": MANY}
    assert simulator.requests()["models.versions.list"] == MANY


def test_a_killed_deep_sync_goes_on_where_it_was(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    fleet(on_sqlite, simulator, count=MANY)
    rounds = provider_survey.ROUND

    class Killed(BaseException):
        pass

    def say(text: str) -> None:
        if text.startswith("asked for"):
            raise Killed

    provider_survey.ROUND = 10
    try:
        with pytest.raises(Killed):
            bulk_sync(on_sqlite, BulkOptions(apply=True, deep=True), actor="test", say=say)
        simulator.control("requests/reset")
        report = run(on_sqlite, BulkOptions(apply=True, deep=True))
    finally:
        provider_survey.ROUND = rounds
    assert report.outcomes == {"updated": MANY}
    assert simulator.requests()["models.versions.list"] == MANY - 10


def test_test_rows_and_inactive_models_are_left_out(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    first, second = train_at_provider(simulator, "user-50c", times=2)
    train_at_provider(simulator, "older", times=2)
    active = add_served(on_sqlite.database, "user-50c", first["version"], user_id="u1")
    older = f"{provider_model('older')}:{'a' * 64}"
    add_served(on_sqlite.database, "older", older, user_id="u1", completed_at=on_sqlite.now())
    add_served(on_sqlite.database, "trial", "a" * 64, is_test=True)
    with on_sqlite.database.begin() as session:
        model = session.get_one(UserModel, active)
        session.get_one(User, model.user_id).active_model_id = active
    report = run(on_sqlite)
    assert [result.model_key for result in report.results] == ["user-50c"]
    assert row(on_sqlite, "user-50c").replicate_version_id == second["version"]
    assert row(on_sqlite, "older").replicate_version_id == older
    assert run(on_sqlite, BulkOptions(include_tests=True)).models == 2


def test_no_query_for_a_single_model(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    counts = []
    for count in (50, 150):
        fleet(on_sqlite, simulator, count=count)
        with statements_on(on_sqlite) as statements:
            assert run(on_sqlite).outcomes["updated"] == count
        counts.append(len(statements))
        with on_sqlite.database.begin() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
        simulator.reset()
    assert counts[0] == counts[1] < 80


KILLED = """
import sys
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline.versions import settling
from lora_pipeline.versions.bulk_sync import BulkOptions, bulk_sync
settling.CHUNK = 10
bulk_sync(Connections(Settings()), BulkOptions(apply=True), actor="killed", say=lambda text: print(text, flush=True))
"""


def test_a_process_killed_in_the_middle_leaves_whole_models_and_the_next_one_goes_on(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    old, new = fleet(on_sqlite, simulator, count=100)
    settings = on_sqlite.settings
    environment = os.environ | {
        "DATABASE_URL": settings.resolved_database_url,
        "LORA_HOME": str(settings.home),
        "LORA_LEASE": "1",
        "REPLICATE_API_TOKEN": "r8_test",
        "REPLICATE_BASE_URL": simulator.url,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if ": updated" in line:
            process.kill()
            break
    process.wait()

    weights = weights_of(on_sqlite)
    after = served(on_sqlite)
    done = {key for key in new if after[key] == (new[key], weights[new[key]])}
    assert 0 < len(done) < 100
    assert all(after[key][0] == old[key] for key in set(new) - done)

    deadline = time.monotonic() + 20
    while True:
        try:
            report = run(on_sqlite)
            break
        except AnotherAtWork:
            assert time.monotonic() < deadline, "a killed sync must give way"
            time.sleep(0.1)
    assert report.outcomes == {"updated": 100 - len(done), "up_to_date": len(done)}
    assert {key: version for key, (version, _) in served(on_sqlite).items()} == new
    assert all(len(history(on_sqlite, key)) == 2 for key in new)
