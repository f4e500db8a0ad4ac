"""The bench itself works; what it measures at this size says nothing about speed."""

import zipfile
from io import BytesIO
from pathlib import Path

from pydantic import SecretStr

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline_tests.bench import zip_row
from lora_pipeline_tests.bench.__main__ import measure
from lora_pipeline_tests.bench.ready_sets import PHOTOGRAPHS, make_ready_sets


def test_the_zip_row_measures_speed_memory_and_identity() -> None:
    speed, memory, identity = zip_row.run(quick=True, total=40_000_000)
    assert speed.ratio is not None
    assert speed.ratio > 0
    assert memory.ok
    assert identity.ok


def test_sets_made_in_bulk_are_started_as_they_are(tmp_path: Path, simulator: RunningSimulator) -> None:
    settings = Settings(
        home=tmp_path, replicate_api_token=SecretStr("r8_bench"), replicate_base_url=simulator.url
    )
    keys = make_ready_sets(settings, 3)
    connections = Connections(settings)
    report = start_ready(connections, lease=None)
    assert (sorted(report.done), report.failures) == (keys, ())
    with connections.database.read() as session:
        zips = [connections.store.get_bytes(str(run.zip_key)) for run in session.query(TrainingRun)]
    pictures = [
        [name for name in zipfile.ZipFile(BytesIO(data)).namelist() if name.endswith("jpg")] for data in zips
    ]
    assert [len(names) for names in pictures] == [PHOTOGRAPHS] * 3


def test_a_row_that_fails_is_a_missed_budget() -> None:
    (row,) = measure("no_such", quick=True)
    assert not row.ok
    assert "no_such_row" in row.note
