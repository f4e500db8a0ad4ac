"""One model materialised by a person, through Dagster's own execution, on both databases."""

from collections.abc import Iterator

import dagster as dg
import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import OutboxEvent, TrainingRun
from lora_pipeline.definitions import build_defs
from lora_pipeline.defs.resources import Pipeline
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finishing import follow_and_find_work
from lora_pipeline.trainings.start_batch import work_to_start
from lora_pipeline_tests.fixtures.photographs import drop_photographs

KEY = "user-50c"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("models", [KEY])
        yield instance


@pytest.fixture
def defs(connections: Connections) -> dg.Definitions:
    settings = connections.settings
    token = settings.replicate_api_token
    assert token is not None
    overrides = {
        "home": str(settings.home),
        "database_url": settings.database_url,
        "replicate_api_token": token.get_secret_value(),
        "replicate_base_url": settings.replicate_base_url,
        "image_profile": "demo",
    }
    return build_defs({"pipeline": Pipeline(overrides=overrides)}, Settings())


def _train(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("train_model")
    return job.execute_in_process(instance=instance, partition_key=KEY, raise_on_error=False)


def test_materialising_all_submits_and_ends_without_waiting(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    connections: Connections,
    simulator: RunningSimulator,
) -> None:
    drop_photographs(connections.settings.home / "inbox" / KEY, 5)
    result = _train(defs, instance)
    assert result.success
    done = [
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    ]
    assert done == ["uploaded_image_set", "training_zip", "replicate_training"]
    assert simulator.paid()["count"] == 1
    with connections.database.read() as session:
        owed = session.query(OutboxEvent).all()
    assert not owed, "what an asset reports itself is owed to nobody"

    simulator.advance(7200)
    assert follow_and_find_work(connections).lease
    finished = dg.materialize(
        [defs.get_assets_def("trained_lora")],
        instance=instance,
        partition_key=KEY,
        resources={"pipeline": defs.resources["pipeline"]} if defs.resources else None,
        selection=["trained_lora"],
    )
    event = finished.get_asset_materialization_events()[0]
    assert "Simulated" in str(event.materialization.metadata["simulated"].value)
    assert event.materialization.metadata["version"].value == 1


def test_a_blocked_set_fails_the_run_with_the_reason(
    defs: dg.Definitions, instance: dg.DagsterInstance, connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(connections.settings.home / "inbox" / KEY, 4)
    result = _train(defs, instance)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "At least 5 training images are required" in str(failure.step_failure_data.error)
    assert simulator.paid()["count"] == 0


def test_a_zip_made_by_hand_is_not_submitted_behind_the_persons_back(
    defs: dg.Definitions, instance: dg.DagsterInstance, connections: Connections, simulator: RunningSimulator
) -> None:
    drop_photographs(connections.settings.home / "inbox" / KEY, 5)
    job = defs.resolve_job_def("train_model")
    packed = job.execute_in_process(
        instance=instance,
        partition_key=KEY,
        asset_selection=[dg.AssetKey("uploaded_image_set"), dg.AssetKey("training_zip")],
    )
    assert packed.success
    assert work_to_start(connections).lease is None
    assert simulator.paid()["count"] == 0
    with connections.database.read() as session:
        assert session.query(TrainingRun).one().state == "packed"


def test_no_name_of_a_file_reaches_dagsters_storage(
    defs: dg.Definitions, instance: dg.DagsterInstance, connections: Connections
) -> None:
    folder = connections.settings.home / "inbox" / KEY
    for path in drop_photographs(folder, 6):
        path.rename(folder / f"anna mueller {path.name}")
    (folder / "anna mueller copy.jpg").write_bytes((folder / "anna mueller photo 00.jpg").read_bytes())
    result = _train(defs, instance)
    assert result.success
    stored = "".join(dg.serialize_value(entry) for entry in instance.all_logs(result.run_id))
    assert "anna" not in stored
    assert "exact duplicate" in stored
