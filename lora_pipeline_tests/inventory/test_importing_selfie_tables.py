"""The selfie product's tables: judged row by row, folded, loaded twice without effect, and never written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.cli.exits import Exit
from lora_pipeline.database.sessions import Database, database_url
from lora_pipeline.database.tables import Callback, ModelVersion, ReviewItem, TrainingRun, User, UserModel
from lora_pipeline.inventory.sselfie_import import SelfieReport, import_selfie
from lora_pipeline.inventory.sselfie_tables import SourceRefused, read_only_engine, read_tables
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


@pytest.fixture(params=["sqlite", "postgresql"])
def old_anywhere(request: pytest.FixtureRequest, old: str) -> str:
    """The URL of an old database that is still to be made, on each of both."""
    if request.param == "sqlite":
        return old
    return str(request.getfixturevalue("new_postgres_database")("old_selfie"))


@pytest.mark.parametrize("generation", ["serial ids", "UUID ids", "live"])
def test_every_generation_is_read(sqlite_database: Database, old_anywhere: str, generation: str) -> None:
    user_id: Any = 42585527 if generation == "serial ids" else "5b0f3f3e-7c1a-4a55-9c3e-0d5c2b1f9a10"
    row_id: Any = "0e1c9d5e-7c1a-4a55-9c3e-0d5c2b1f9a11" if generation == "UUID ids" else 1
    run = {
        "id": "7",
        "user_id": user_id,
        "training_id": JOB,
        "status": "completed",
        "parameters": '{"steps": 1000}',
        "created_at": THEN,
        "completed_at": THEN,
    }
    weights = {"id": "9", "user_id": user_id, "s3_bucket": "loras", "s3_key": "a.safetensors"}
    make_database(
        old_anywhere,
        [model_row(id=row_id, user_id=user_id)],
        runs=[run],
        weights=[weights],
        generation=generation,
    )
    report = load(sqlite_database, old_anywhere)
    assert (report.generation, report.left_out) == (generation, 0)
    assert (report.users_new, report.models_new, report.versions_new, report.runs_new) == (1, 1, 2, 1)
    with sqlite_database.read() as session:
        model = session.query(UserModel).one()
        assert (model.model_key, model.replicate_version_id) == (f"user-{user_id}", f"{MODEL}:{HASH}")
        version = session.query(ModelVersion).filter_by(number=1).one()
        assert (version.parameters, version.lora_scale, version.trained_at) == ({"steps": 1000}, 1.0, THEN)
    before = rows(sqlite_database)
    load(sqlite_database, old_anywhere)
    assert rows(sqlite_database) == before


def test_postgresql_is_read_in_a_transaction_that_cannot_write(
    new_postgres_database: Callable[[str], str],
) -> None:
    url = new_postgres_database("old_selfie")
    make_database(url, [model_row()])
    engine = read_only_engine(database_url(url))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "repeatable read"
    engine.dispose()


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
        ({"lora_scale": "strong"}, "odd_scale", True),
        ({"completed_at": "yesterday"}, "unreadable_time", True),
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
    first, again = load(sqlite_database, old), load(sqlite_database, old)
    assert (first.versions_new, again.versions_new, again.versions_known) == (2, 0, 2)
    assert "own_version" in {defect.kind for defect in first.defects}
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


def test_our_own_registry_is_not_loaded_into_itself(database: Database) -> None:
    with pytest.raises(SourceRefused, match="a registry of this program"):
        read_tables(database.url.render_as_string(hide_password=False))


def test_an_address_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    run("db", "upgrade")
    with pytest.raises(SourceRefused, match="there is no file"):
        read_tables(f"sqlite:///{tmp_path / 'missing.sqlite3'}")
    assert not (tmp_path / "missing.sqlite3").exists()
    Database(f"sqlite:///{tmp_path / 'empty.sqlite3'}").close()
    (tmp_path / "empty.sqlite3").touch()
    assert run("import", "sselfie", f"sqlite:///{tmp_path / 'empty.sqlite3'}").code == Exit.WRONG_USE


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/db", Exit.ERROR),
        (f"postgres://u:{SECRET}@nowhere.invalid/db", Exit.ERROR),
        (f"postgresql:///db?password={SECRET}&host=127.0.0.1&port=1", Exit.ERROR),
        (f"postgresql://u:x@{SECRET}@127.0.0.1:1/db", Exit.WRONG_USE),
        (f"postgresql://u:{SECRET}@[::1/db", Exit.WRONG_USE),
        (f"mysql://u:{SECRET}@h/db", Exit.WRONG_USE),
        (f"nonsense://u:{SECRET}@h/db", Exit.WRONG_USE),
        (SECRET, Exit.WRONG_USE),
    ],
)
def test_no_error_shows_the_password(run: Run, url: str, code: Exit) -> None:
    run("db", "upgrade")
    ended = run("import", "sselfie", url)
    assert ended.code == code
    assert SECRET not in ended.out + ended.err
    assert "DATABASE_URL" not in ended.err, "it is not our database that could not be read"


def test_a_password_in_the_address_of_another_database_is_not_shown(
    run: Run, new_postgres_database: Callable[[str], str]
) -> None:
    run("db", "upgrade")
    url = new_postgres_database("something_else")
    scheme, _, rest = url.partition("://")
    user, _, place = rest.rpartition("@")
    ended = run("import", "sselfie", f"{scheme}://{user.partition(':')[0]}:{SECRET}@{place}")
    assert ended.code == Exit.WRONG_USE
    assert "has no table user_models" in ended.err
    assert SECRET not in ended.err


def test_a_database_beside_odd_characters_is_read_and_nothing_is_left_there(
    sqlite_database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "100% of #1 ü"
    folder.mkdir()
    make_database(f"sqlite:///{folder / 'old.sqlite3'}", [model_row()])
    with closing(sqlite3.connect(folder / "old.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert load(sqlite_database, f"sqlite:///{folder / 'old.sqlite3'}").versions_new == 1
    assert [file.name for file in folder.iterdir()] == ["old.sqlite3"]


def test_rows_of_nobody_and_rows_that_cannot_be_kept_are_named_and_the_others_are_loaded(
    database: Database, old: str
) -> None:
    odd = model_row(
        id=3, user_id="odd", model_name="a\0b", trigger_word="c\0d", replicate_version_id=f"x/y:{OTHER_HASH}"
    )
    nobody = model_row(id=2, user_id=None, trigger_word="nobody")
    long = model_row(id=4, user_id="x" * 65, trigger_word="long")
    run = {"id": "7", "user_id": "lonely", "status": "completed", "created_at": THEN}
    users = [{"id": one, "email": None} for one in ("42585527", "odd", "x" * 65, "lonely")]
    make_database(old, [model_row(), nobody, odd, long], users=users, runs=[run])
    report = load(database, old)
    told = {defect.where: defect.what for defect in report.defects if defect.kind == "orphan"}
    assert "user NULL is not in users" in told["user_models 2"]
    assert "65 characters" in told["user_models 4"]
    assert "no row in user_models" in told["training_runs 7"]
    with database.read() as session:
        keys = {model.model_key for model in session.query(UserModel)}
    if database.dialect == "postgresql":  # which keeps no NUL
        assert "not loaded" in told["user_models 3"]
        assert keys == {"user-42585527"}
    else:
        assert keys == {"user-42585527", "user-odd"}
    assert report.models_new == len(keys)


def test_the_application_is_not_told_of_what_it_serves_already(sqlite_database: Database, old: str) -> None:
    make_database(old, [model_row()])
    load(sqlite_database, old)
    with sqlite_database.read() as session:
        assert session.query(Callback).count() == 0


def test_one_object_of_two_users_is_loaded_once_and_named(sqlite_database: Database, old: str) -> None:
    other = model_row(
        id=2, user_id="7", trigger_word="user7", replicate_version_id=f"x/y:{OTHER_HASH}", training_id=None
    )
    weights = [
        {"id": str(n), "user_id": user, "s3_bucket": "loras", "s3_key": "a.safetensors"}
        for n, user in enumerate(("42585527", "7"))
    ]
    make_database(old, [model_row(), other], weights=weights)
    report = load(sqlite_database, old)
    assert [defect.where for defect in report.defects if defect.kind == "other_model"] == ["lora_weights 1"]


def test_every_row_that_could_not_be_trusted_is_kept_for_a_person(run: Run, old: str, home: Path) -> None:
    run("db", "upgrade")
    make_database(
        old,
        [
            model_row(replicate_version_id=TRAINER_HASH),
            model_row(id=2, user_id="2", trigger_word="u2", replicate_model_id=JOB),
            model_row(
                id=3,
                user_id="3",
                trigger_word="u3",
                replicate_version_id=f"{MODEL}:{OTHER_HASH}",
                lora_weights_url=f"https://replicate.delivery/pbxt/{OTHER_HASH}/flux-lora.tar",
                completed_at=THEN + timedelta(hours=2),
            ),
            model_row(
                id=4, user_id="4", trigger_word="u4", replicate_version_id=None, training_status="pending"
            ),
        ],
    )
    expected = {
        "trainer_version": "user_models 1",
        "training_id_as_model": "user_models 2",
        "invented_weights": "user_models 3",
        "local_time": "user_models 3",
        "stuck_pending": "user_models 4",
    }
    shown = run("import", "sselfie", old)
    for kind, where in expected.items():
        assert any(where.split() == line.split()[:2] and kind in line for line in shown.out.splitlines()), (
            kind
        )
    told = run("import", "sselfie", old, "--json").json
    assert expected.items() <= {(defect["kind"], defect["where"]) for defect in told["defects"]}
    run("import", "sselfie", old, "--apply")
    database = Database(f"sqlite:///{home / 'lora.sqlite3'}")
    with database.read() as session:
        kept = {item.subject for item in session.query(ReviewItem)}
    database.close()
    # Two hours are set right; the others are for a person.
    assert {f"{where}: {kind}" for kind, where in expected.items() if kind != "local_time"} <= kept
