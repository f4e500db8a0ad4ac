"""The sync status report: the active completed model of each user, in the words people know."""

from __future__ import annotations

import csv
import io
import json
import logging
from datetime import timedelta

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import User
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.versions.drift import Verdict, Word
from lora_pipeline.versions.lookup import ModelNotFound
from lora_pipeline.versions.provider_survey import FEW
from lora_pipeline.versions.sync import sync_model
from lora_pipeline.versions.sync_status import ReportOptions, SyncReport, sync_status
from lora_pipeline.versions.sync_tables import COLUMNS, to_csv, to_frame
from lora_pipeline_tests.versions.fleets import (
    add_served,
    provider_model,
    push_versions,
    row,
    train_at_provider,
    train_many_at_provider,
)

KEY = "user-50c"


def status(connections: Connections, **options: object) -> SyncReport:
    return sync_status(connections, ReportOptions(**options), sleep=lambda _: None)  # type: ignore[arg-type]


def test_user_50c_needs_sync_then_is_up_to_date(
    connections: Connections, simulator: RunningSimulator
) -> None:
    made = train_at_provider(simulator, KEY, times=3)
    hashes = [one["version"].partition(":")[2] for one in made]
    add_served(connections.database, KEY, hashes[0], email="fifty@example.org")

    (line,) = status(connections).as_json()["users"]
    assert (line["status"], line["verdict"], line["needsSync"]) == ("Needs Sync", "behind", True)
    assert (line["currentVersion"], line["latestVersion"]) == (hashes[0], hashes[2])
    assert (line["totalVersionsOnReplicate"], line["email"]) == (3, "fifty@example.org")
    assert [version["id"] for version in line["allVersions"]] == hashes[::-1]
    assert all(version["created_at"] for version in line["allVersions"])
    assert line["updated_at"]
    assert line["completed_at"]
    assert line["countedAt"]

    sync_model(connections, KEY, actor="test")
    report = status(connections)
    (line,) = report.as_json()["users"]
    assert (line["status"], line["needsSync"], line["error"]) == ("Up to Date", False, None)
    assert line["currentVersion"] == line["latestVersion"] == hashes[2]
    assert (report.total_users, report.users_needing_sync) == (1, 0)


def test_a_version_stored_as_model_and_hash_is_up_to_date_at_once(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, made["version"].partition("/")[2])
    (line,) = status(on_sqlite).rows
    assert line.drift.verdict is Verdict.UP_TO_DATE


def test_only_the_active_completed_model_counts(
    connections: Connections, simulator: RunningSimulator
) -> None:
    now = connections.now()
    for key in ("first", "second", "third", "failed"):
        train_at_provider(simulator, key)
    ids = {
        key: add_served(
            connections.database,
            key,
            None,
            user_id="u1",
            completed_at=now - timedelta(days=age),
            # A sync touches rows: when one was last changed must not make it the active one.
            updated_at=now - timedelta(days=50 - age),
            training_status="failed" if key == "failed" else "completed",
        )
        for age, key in enumerate(("failed", "second", "third", "first"))
    }
    assert [line.model_key for line in status(connections).rows] == ["second"]

    def activate(key: str) -> None:
        with connections.database.begin() as session:
            session.get_one(User, "u1").active_model_id = ids[key]

    activate("first")
    assert [line.model_key for line in status(connections).rows] == ["first"]
    activate("failed")
    assert [line.model_key for line in status(connections).rows] == ["second"]


def test_the_house_is_listed_model_by_model_and_counts_as_one_user(
    connections: Connections, simulator: RunningSimulator
) -> None:
    for n in range(1, 4):
        made = train_at_provider(simulator, f"style_{n}", times=2)
        add_served(connections.database, f"style_{n}", made[0]["version"], user_id="house", is_house=True)
    report = status(connections)
    assert [line.model_key for line in report.rows] == ["style_1", "style_2", "style_3"]
    assert (report.total_users, report.users_needing_sync) == (1, 1)


def test_test_rows_are_left_out_unless_asked_for(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    (made,) = train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, made["version"])
    add_served(on_sqlite.database, "trial", None, is_test=True)
    assert [line.model_key for line in status(on_sqlite).rows] == [KEY]
    assert len(status(on_sqlite, include_tests=True).rows) == 2


def test_an_error_is_never_up_to_date_and_says_what_to_check(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    push_versions(simulator, "empty")
    for key, version, fields in (
        ("gone", "a" * 64, {}),
        ("empty", "a" * 64, {}),
        ("nulled", "a" * 64, {"replicate_model_id": None}),
        ("job", "a" * 64, {"replicate_model_id": "k8sy6bgx31rm80cr2cwbn2bqkw"}),
    ):
        add_served(on_sqlite.database, key, version, **fields)
    report = status(on_sqlite)
    lines = {line["modelKey"]: line for line in report.as_json()["users"]}
    assert {key: line["verdict"] for key, line in lines.items()} == {
        "gone": "model_not_found",
        "empty": "no_versions",
        "nulled": "malformed_model_id",
        "job": "malformed_model_id",
    }
    for line in lines.values():
        assert (line["status"], line["needsSync"]) == ("Error", None)
        assert line["error"]
    assert "training id" in lines["job"]["error"]
    assert any("Check if model exists on Replicate" in text for text in lines["gone"]["advice"])
    assert any("not null" in text for text in lines["nulled"]["advice"])
    assert report.as_json()["errors"] == 4


def test_a_wrong_token_is_an_error_with_its_cause(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    add_served(on_sqlite.database, KEY, "a" * 64)
    simulator.settings(api_token="r8_another")
    (line,) = status(on_sqlite).rows
    assert (line.drift.verdict, line.drift.needs_sync) == (Verdict.PROVIDER_ERROR, None)
    assert "REPLICATE_API_TOKEN" in line.drift.detail


def test_totals_are_counted_over_all_pages_and_remembered_with_their_date(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    push_versions(simulator, KEY, *(f"{n:064x}" for n in range(1, 61)))
    add_served(on_sqlite.database, KEY, f"{60:064x}")
    (line,) = status(on_sqlite, user=KEY).rows
    assert (line.total_versions, len(line.all_versions)) == (60, 5)
    assert [version for version, _ in line.all_versions] == [f"{n:064x}" for n in range(60, 55, -1)]
    counted = line.counted_at

    train_many_at_provider(simulator, FEW + 5)
    for n in range(FEW + 5):
        add_served(on_sqlite.database, f"m{n}", None)
    train_at_provider(simulator, KEY)
    lines = {one.model_key: one for one in status(on_sqlite).rows}
    assert (lines[KEY].total_versions, lines[KEY].counted_at) == (60, counted)
    assert lines["m1"].total_versions is None
    deep = {one.model_key: one for one in status(on_sqlite, deep=True).rows}
    assert (deep[KEY].total_versions, deep["m1"].total_versions) == (61, 1)
    recounted = deep[KEY].counted_at
    assert counted is not None
    assert recounted is not None
    assert recounted > counted


def test_what_was_seen_last_can_be_reported_without_asking(
    connections: Connections, simulator: RunningSimulator
) -> None:
    made = train_at_provider(simulator, KEY, times=2)
    add_served(connections.database, KEY, made[0]["version"])
    add_served(connections.database, "unseen", "a" * 64)
    status(connections, user=KEY)
    simulator.control("requests/reset")
    lines = {one.model_key: one for one in status(connections, remembered=True).rows}
    assert simulator.requests() == {}
    assert (lines[KEY].drift.verdict, lines[KEY].total_versions) == (Verdict.BEHIND, 2)
    assert lines[KEY].seen_at is not None
    assert lines["unseen"].drift.verdict is Verdict.PROVIDER_ERROR


def test_one_user_by_id_e_mail_model_key_or_provider_name(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    train_at_provider(simulator, KEY)
    add_served(on_sqlite.database, KEY, None, user_id="u-7", email="Fifty@Example.org")
    add_served(on_sqlite.database, "somebody", None)
    for text in ("u-7", "fifty@example.org", KEY, provider_model(KEY), f"{KEY}-selfie-lora"):
        assert [line.model_key for line in status(on_sqlite, user=text).rows] == [KEY]
    with pytest.raises(ModelNotFound):
        status(on_sqlite, user="nobody")


def test_an_empty_report_says_where_to_look(on_sqlite: Connections) -> None:
    add_served(on_sqlite.database, KEY, None, training_status="failed", replicate_model_id=None)
    report = status(on_sqlite)
    assert report.rows == ()
    assert "found 1 users with 1 models, 0 of them completed" in report.hints[0]
    assert "Check if any users have training_status = 'completed'" in report.hints


def test_the_log_says_totals_then_who_and_why_and_no_e_mail(
    on_sqlite: Connections, simulator: RunningSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (one["version"].partition(":")[2] for one in train_at_provider(simulator, KEY, times=2))
    add_served(on_sqlite.database, KEY, first, user_id="u-7", email="fifty@example.org")
    add_served(on_sqlite.database, "gone", "a" * 64)
    with caplog.at_level(logging.INFO, logger="lora_pipeline"):
        status(on_sqlite)
    assert caplog.messages[:3] == [
        "Total users found: 2",
        "Users needing sync: 1",
        f"User u-7 ({KEY}) needs sync: current {first[:12]}…, latest {second[:12]}…",
    ]
    assert "Error for user gone (gone): model_not_found" in caplog.messages[3]
    assert "@" not in caplog.text


def test_the_report_as_json_csv_and_a_data_frame(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    made = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, made[0]["version"], email='=HYPERLINK("https://evil.example")@x.org')
    add_served(on_sqlite.database, "without", "a" * 64, replicate_model_id="+1+1", email="@SUM(A1)")
    report = status(on_sqlite)
    assert json.loads(json.dumps(report.as_json())) == report.as_json()

    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert (
        [record["modelKey"] for record in rows]
        == [KEY, "without"]
        == [line.model_key for line in report.rows]
    )
    assert rows[0]["email"].startswith("'=")
    assert rows[1]["email"] == "'@SUM(A1)"
    assert rows[1]["modelId"] == "'+1+1"
    assert rows[1]["needsSync"] == ""
    for record in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in record.values())

    frame = to_frame(report)
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["needsSync"]) == [True, None]
    assert frame["totalVersionsOnReplicate"].to_list()[0] == 2
    assert str(frame["completed_at"].dtype).endswith("UTC]")
    empty = SyncReport((), report.checked_at, None)
    assert list(to_frame(empty).columns) == list(COLUMNS)
    assert to_csv(empty).count("\n") == 1


def test_a_report_changes_nothing_that_is_served(on_sqlite: Connections, simulator: RunningSimulator) -> None:
    made = train_at_provider(simulator, KEY, times=2)
    add_served(on_sqlite.database, KEY, made[0]["version"])
    before = row(on_sqlite, KEY)
    assert status(on_sqlite).with_word(Word.NEEDS_SYNC)
    after = row(on_sqlite, KEY)
    assert (after.replicate_version_id, after.updated_at) == (before.replicate_version_id, before.updated_at)
