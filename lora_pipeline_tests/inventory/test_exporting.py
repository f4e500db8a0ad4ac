"""What was trained here, as the older application's files say it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import ImageSet, TrainingRun
from lora_pipeline.inventory.legacy_export import export_tree
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline_tests.fixtures.pipeline import add_packed_run
from lora_pipeline_tests.inventory.trees import NAME, PARAMETERS, WEBHOOK_ENTRY
from lora_pipeline_tests.versions.registered import add_version

JOB = "3e248bb6-012c-4384-ae6c-4b19c126d093-e1"
BEGUN = datetime(2025, 10, 12, 8, 14, 0, 884_000, tzinfo=UTC)
ENDED = datetime(2025, 10, 12, 8, 41, 5, 201_000, tzinfo=UTC)


def trained(database: Database, store: ObjectStore, status: str) -> int:
    run_id = add_packed_run(
        database, store, "style_1", provider="runpod", training_id=JOB, status=status, parameters=PARAMETERS
    )
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id)
        run.created_at, run.completed_at = BEGUN, ENDED
        image_set = session.get_one(ImageSet, run.image_set_id)
        image_set.external_id, image_set.usable_count = "1", 43
    return run_id


def exported(database: Database, folder: Path) -> dict[str, Any]:
    export_tree(database, folder, apply=True)
    (file,) = folder.rglob(NAME)
    (entry,) = json.loads(file.read_text())["versions"]
    assert isinstance(entry, dict)
    return entry


def test_a_completed_training_has_the_fields_that_the_webhook_handler_wrote(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    run_id = trained(database, store, "completed")
    address = str(WEBHOOK_ENTRY["loraUrl"])
    add_version(
        database,
        "style_1",
        7,
        training_run_id=run_id,
        parameters=PARAMETERS,
        image_count=43,
        weights_url=address,
        provider_version=None,
        trained_at=ENDED,
    )
    entry = exported(database, tmp_path / "out")
    assert entry | {"id": JOB, "mergedIds": []} == {
        **WEBHOOK_ENTRY,
        "parameters": PARAMETERS,
        "mergedIds": [],
    }


def test_a_training_that_is_under_way_is_pending_and_a_failed_one_says_why(
    database: Database, store: ObjectStore, tmp_path: Path
) -> None:
    run_id = trained(database, store, "training")
    started = {
        "id": JOB,
        "name": "attempt 1",
        "timestamp": "2025-10-12T08:14:00.884Z",
        "parameters": PARAMETERS,
        "selectionSetId": 1,
        "imageCount": 43,
    }
    assert exported(database, tmp_path / "before") == {**started, "status": "pending"}
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id)
        run.state = run.status = "failed"
        run.error = "CUDA out of memory"
    assert exported(database, tmp_path / "after") == {
        **started,
        "status": "failed",
        "error": "CUDA out of memory",
        "failedAt": "2025-10-12T08:41:05.201Z",
    }
