"""The selfie product's tables: judged row by row, folded, loaded twice without effect, and never written to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion, ReviewItem, TrainingRun, User, UserModel
from lora_pipeline.inventory.sselfie_import import SelfieReport, import_selfie
from lora_pipeline.inventory.sselfie_tables import SourceRefused, read_tables
from lora_pipeline.inventory.sselfie_verdicts import judge_model
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.inventory.selfie_databases import (
    HASH,
    JOB,
    MODEL,
    OTHER_HASH,
    THEN,
    TRAINER_HASH,
    WEIGHTS,
    make_database,
    model_row,
)
from lora_pipeline_tests.inventory.test_registry_duplicates import rows

NOW = THEN + timedelta(days=30)


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of an old database that is still to be made."""
    return f"sqlite:///{tmp_path / 'old.sqlite3'}"


def load(database: Database, url: str, *, apply: bool = True) -> SelfieReport:
    return import_selfie(database, read_tables(url), NOW, apply=apply)


def test_a_sound_row_becomes_a_served_version(database: Database, old: str) -> None:
    run = {
        "id": "7",
        "user_id": "42585527",
        "training_id": JOB,
        "status": "completed",
        "parameters": '{"steps": 1000}',
        "created_at": THEN,
        "completed_at": THEN,
    }
    weights = {
        "id": "9",
        "user_id": "42585527",
        "training_run_id": "7",
        "s3_bucket": "loras",
        "s3_key": "a.safetensors",
        "status": "available",
    }
    make_database(old, [model_row()], runs=[run], weights=[weights])
    report = load(database, old)
    assert (report.users_new, report.models_new, report.versions_new, report.runs_new) == (1, 1, 1, 1)
    assert (report.generation, report.defects) == ("live", [])
    with database.read() as session:
        model = session.query(UserModel).one()
        assert (model.model_key, model.trigger_word) == ("user-42585527", "user42585527")
        assert (model.replicate_version_id, model.lora_weights_url) == (f"{MODEL}:{HASH}", WEIGHTS)
        assert session.get_one(User, "42585527").email == "42585527@example.com"
        version = session.query(ModelVersion).one()
        assert (version.parameters, version.weights_state) == ({"steps": 1000}, "unverified")
        assert version.training_run_id == session.query(TrainingRun).one().id


def test_loading_twice_changes_nothing(database: Database, old: str) -> None:
    make_database(
        old,
        [model_row(), model_row(id=2, user_id="7", trigger_word="user7", replicate_version_id=TRAINER_HASH)],
        runs=[{"id": "1", "user_id": "7", "status": "failed", "error": "x", "created_at": THEN}],
        weights=[{"id": "9", "user_id": "7", "s3_bucket": "loras", "s3_key": "a.safetensors"}],
    )
    load(database, old)
    before = rows(database)
    again = load(database, old)
    assert rows(database) == before
    assert (again.users_new, again.models_new, again.versions_new, again.runs_new) == (0, 0, 0, 0)
    with database.read() as session:
        assert session.query(ReviewItem).count() == 1


def test_a_plan_loads_nothing_and_says_the_same(database: Database, old: str) -> None:
    make_database(old, [model_row()])
    empty = rows(database)
    plan = load(database, old, apply=False)
    assert rows(database) == empty
    assert plan.versions_new == 1


@pytest.mark.parametrize("generation", ["serial ids", "UUID ids", "live"])
def test_every_generation_is_read(sqlite_database: Database, old: str, generation: str) -> None:
    user_id: Any = 42585527 if generation == "serial ids" else "5b0f3f3e-7c1a-4a55-9c3e-0d5c2b1f9a10"
    row_id: Any = "0e1c9d5e-7c1a-4a55-9c3e-0d5c2b1f9a11" if generation == "UUID ids" else 1
    make_database(old, [model_row(id=row_id, user_id=user_id)], generation=generation)
    report = load(sqlite_database, old)
    assert report.generation == generation
    assert report.versions_new == 1
    with sqlite_database.read() as session:
        assert session.query(UserModel).one().model_key == f"user-{user_id}"


def test_postgresql_is_read_in_a_read_only_transaction(
    sqlite_database: Database, postgres_server: str
) -> None:
    from lora_pipeline_tests.fixtures.databases import _named

    url = make_database(_named(postgres_server, "old_selfie"), [model_row()])
    assert load(sqlite_database, url).versions_new == 1


@pytest.mark.parametrize(
    ("changes", "kind", "loaded"),
    [
        ({"replicate_version_id": TRAINER_HASH}, "trainer_version", False),
        ({"replicate_version_id": f"ostris/flux-dev-lora-trainer:{HASH}"}, "trainer_version", False),
        ({"replicate_version_id": HASH[:8]}, "malformed_version", False),
        ({"replicate_version_id": JOB}, "malformed_version", False),
        ({"replicate_version_id": WEIGHTS}, "malformed_version", False),
        ({"replicate_model_id": JOB}, "training_id_as_model", True),
        ({"replicate_model_id": JOB, "replicate_version_id": HASH}, "version_without_model", False),
        ({"replicate_version_id": HASH}, "odd_spelling", True),
        ({"replicate_version_id": f"42585527-selfie-lora:{HASH}"}, "odd_spelling", True),
        ({"replicate_version_id": f"https://replicate.com/{MODEL}/versions/{HASH}"}, "odd_spelling", True),
        (
            {"lora_weights_url": f"https://replicate.delivery/pbxt/{HASH}/flux-lora.tar"},
            "invented_weights",
            True,
        ),
        ({"lora_weights_url": None}, "no_weights", True),
        ({"completed_at": THEN + timedelta(hours=2)}, "local_time", True),
        ({"replicate_version_id": None, "training_status": "training"}, "stuck_pending", False),
        ({"replicate_version_id": None, "training_status": "failed"}, "blanked_by_retrain", False),
        ({"replicate_version_id": None}, "no_version", False),
        ({"model_name": "test-selfie"}, "test_row", True),
        ({"is_test": True}, "test_row", True),
        ({"trigger_word": ""}, "no_trigger", True),
    ],
)
def test_every_row_that_cannot_be_trusted_is_told(changes: dict[str, Any], kind: str, loaded: bool) -> None:
    judged = judge_model(model_row(**changes), [], NOW)
    assert kind in {defect.kind for defect in judged.defects}
    assert judged.has_version is loaded
    if kind == "invented_weights":
        assert judged.weights_url is None
    if kind == "local_time":
        assert judged.trained_at == THEN
    if kind == "training_id_as_model":
        assert judged.training_id == JOB


def test_several_rows_of_a_user_fold_into_versions_of_one_model(sqlite_database: Database, old: str) -> None:
    newer = model_row(
        id=2,
        replicate_version_id=f"{MODEL}:{OTHER_HASH}",
        training_id=f"{JOB[:-1]}2",
        trigger_word="user42585527b",
        created_at=THEN + timedelta(days=2),
        updated_at=THEN,
        completed_at=THEN + timedelta(days=2),
    )
    synced = model_row(updated_at=THEN + timedelta(days=9))
    make_database(old, [newer, synced])
    report = load(sqlite_database, old)
    assert {"several_rows", "two_latest", "trigger_changed"} <= {defect.kind for defect in report.defects}
    with sqlite_database.read() as session:
        model = session.query(UserModel).one()
        assert model.replicate_version_id == f"{MODEL}:{OTHER_HASH}"
        assert model.trigger_word == "user42585527b"
        found = {version.number: version.trigger_word for version in session.query(ModelVersion)}
        assert found == {1: "user42585527", 2: "user42585527b"}


def test_a_lora_that_only_the_weights_table_knows_is_not_lost(sqlite_database: Database, old: str) -> None:
    weights = {"id": "9", "user_id": "42585527", "s3_bucket": "loras", "s3_key": "old.safetensors"}
    make_database(old, [model_row()], weights=[weights])
    assert load(sqlite_database, old).versions_new == 2
    with sqlite_database.read() as session:
        assert {version.weights_url for version in session.query(ModelVersion)} == {
            WEIGHTS,
            "s3://loras/old.safetensors",
        }


def test_trainings_end_as_they_ended_and_a_running_one_waits(sqlite_database: Database, old: str) -> None:
    runs: list[dict[str, Any]] = [
        {"id": str(number), "user_id": "42585527", "status": status, "created_at": when}
        for number, (status, when) in enumerate(
            [("failed", THEN), ("canceled", THEN), ("training", THEN), ("training", NOW - timedelta(hours=1))]
        )
    ]
    make_database(old, [model_row()], runs=runs)
    report = load(sqlite_database, old)
    assert (report.runs_new, report.waiting) == (3, 1)
    with sqlite_database.read() as session:
        assert {run.state for run in session.query(TrainingRun)} == {"failed", "canceled", "aborted"}


def test_a_row_without_a_user_is_left_out_and_named(sqlite_database: Database, old: str) -> None:
    make_database(old, [model_row(user_id="ghost")], users=[{"id": "42585527", "email": None}])
    report = load(sqlite_database, old)
    assert (report.left_out, report.models_new, report.users_new) == (1, 0, 1)
    assert {defect.kind for defect in report.defects} == {"orphan"}


def test_an_id_that_is_an_e_mail_address_never_becomes_a_key(sqlite_database: Database, old: str) -> None:
    make_database(old, [model_row(user_id="ada@example.com")])
    load(sqlite_database, old)
    with sqlite_database.read() as session:
        assert "ada" not in session.query(UserModel).one().model_key


def test_the_command_tells_defects_and_loads(run: Run, old: str, tmp_path: Path) -> None:
    run("db", "upgrade")
    make_database(
        old,
        [model_row(), model_row(id=2, user_id="7", replicate_version_id=TRAINER_HASH, trigger_word="user7")],
    )
    content = (tmp_path / "old.sqlite3").read_bytes()
    shown = run("import", "sselfie", old)
    assert shown.code == Exit.FINE
    assert "trainer_version" in shown.out
    assert "Nothing was changed" in shown.out
    assert run("import", "sselfie", old, "--apply", "--json").json["versions_new"] == 1
    assert (tmp_path / "old.sqlite3").read_bytes() == content
    assert run("versions", "user-42585527", "--json").json["versions"][0]["active"] is True


def test_an_address_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade")
    with pytest.raises(SourceRefused, match="there is no file"):
        read_tables(f"sqlite:///{tmp_path / 'missing.sqlite3'}")
    assert not (tmp_path / "missing.sqlite3").exists()
    Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}").close()
    (tmp_path / "empty.sqlite3").touch()
    assert run("import", "sselfie", f"sqlite:///{tmp_path / 'empty.sqlite3'}").code == Exit.WRONG_USE
