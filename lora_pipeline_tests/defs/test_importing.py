"""The import job: it plans, loads, and leaves nothing of a person in Dagster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ModelVersion
from lora_pipeline.defs.importing import import_legacy
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline_tests.inventory.selfie_databases import make_database, model_row
from lora_pipeline_tests.inventory.trees import SYNCED_ENTRY, WEBHOOK_ENTRY, write

PERSON = "maria_mueller"


@pytest.fixture
def run(sqlite_database: Database) -> Any:
    """Runs the job; its result, and all that Dagster keeps of it."""

    def run(config: dict[str, Any], **settings: str) -> tuple[dg.ExecuteInProcessResult, str]:
        url = sqlite_database.url.render_as_string(hide_password=False)
        pipeline = Pipeline(overrides={"database_url": url, **settings})
        with dg.DagsterInstance.ephemeral() as instance:
            result = import_legacy.execute_in_process(
                run_config={"ops": {"import_older_system": {"config": config}}},
                resources={"pipeline": pipeline},
                instance=instance,
                raise_on_error=False,
            )
            kept = "".join(str(entry) for entry in instance.all_logs(result.run_id))
        return result, kept

    return run


def versions(database: Database) -> int:
    with database.read() as session:
        return session.query(ModelVersion).count()


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (output,) = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    return {name: value.value for name, value in metadata.items()}


def test_files_are_planned_then_loaded_and_nobody_is_named(
    run: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    write(
        tree / "actors" / f"0006_{PERSON}" / "training_versions.json",
        {"versions": [WEBHOOK_ENTRY, SYNCED_ENTRY]},
    )
    result, kept = run({"training_versions": str(tree)})
    assert result.success
    assert versions(sqlite_database) == 0
    assert told(result)["versions"] == told(result)["duplicates"] == told(result)["defect: duplicate"] == 1
    for _ in range(2):
        result, more = run({"training_versions": str(tree), "apply": True})
        assert result.success
        assert PERSON not in kept + more
        assert versions(sqlite_database) == 1
    assert told(result)["known already"] == 1


def test_a_file_that_cannot_be_read_fails_the_run_and_the_others_are_loaded(
    run: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    write(tree / "actors" / "0006_a" / "training_versions.json", {"versions": [WEBHOOK_ENTRY]})
    (tree / "actors" / "0007_b").mkdir()
    (tree / "actors" / "0007_b" / "training_versions.json").write_text("[")
    result, kept = run({"training_versions": str(tree), "apply": True})
    assert not result.success
    assert "not everything could be read" in kept
    assert versions(sqlite_database) == 1


def test_tables_are_loaded_from_the_database_of_the_setting(
    run: Any, sqlite_database: Database, tmp_path: Path
) -> None:
    old = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    make_database(old, [model_row()])
    result, kept = run({"sselfie": True, "apply": True}, sselfie_url=old)
    assert result.success
    assert (versions(sqlite_database), told(result)["versions"]) == (1, 1)
    assert "old.sqlite3" not in kept


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "give either training_versions or sselfie"),
        ({"training_versions": "x", "sselfie": True}, "give either training_versions or sselfie"),
        ({"training_versions": "/no/such/folder"}, "the code server sees no folder /no/such/folder"),
        ({"sselfie": True}, "LORA_SSELFIE_URL is not set where the code server runs"),
    ],
)
def test_what_cannot_be_read_is_said(run: Any, config: dict[str, Any], expected: str) -> None:
    result, kept = run(config)
    assert not result.success
    assert expected in kept
