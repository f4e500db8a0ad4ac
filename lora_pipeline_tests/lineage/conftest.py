"""One story, told once a database by the real pipeline: what the lineage tests ask about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture
from pydantic import SecretStr

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Image, TrainingRun
from lora_pipeline.identity import ObjectUrlRules
from lora_pipeline.inventory.legacy_import import import_tree
from lora_pipeline.lineage.tracing import Trace, scope_of, trace
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline.trainings.starting import prepare_image_set
from lora_pipeline_tests.fixtures.databases import _named
from lora_pipeline_tests.fixtures.photographs import drop_photographs
from lora_pipeline_tests.inventory.trees import SYNCED_ENTRY, WEBHOOK_ENTRY, style_file, write

KEY, OTHER, UNTRAINED, STYLE = "user-50c", "user-60", "user-7", "style_1"
FAILED_JOB = "99999999-012c-4384-ae6c-4b19c126d093-e2"
FAILED: dict[str, Any] = {
    "id": FAILED_JOB,
    "name": "V8",
    "timestamp": "2025-10-13T08:14:00.884Z",
    "parameters": {"network_dim": 16},
    "status": "failed",
    "error": "Training failed",
}


@dataclass(frozen=True)
class Story:
    """What happened: two trainings of `KEY` (the second with two photographs more), one of `OTHER` with one
    photograph that `KEY` has too, a frozen set of `UNTRAINED` without a training, and `STYLE` from old files."""

    connections: Connections
    photographs: tuple[str, ...]
    """SHA-256 of seven of `KEY`; the last two came later. `OTHER` has the first one too."""
    left_out: str
    """One that is too small."""

    def trace(self, text: str, **options: Any) -> Trace:
        return trace(self.connections.database, text, scope=scope_of(self.connections), **options)

    def versions(self, text: str, **options: Any) -> list[str]:
        """The versions in the answer, by model and number."""
        return sorted(node.label for node in self.trace(text, **options).lineage.versions)

    def row(self, table: type[Any], **values: Any) -> Any:
        """The only row, or the first."""
        with self.connections.database.read() as session:
            return session.query(table).filter_by(**values).order_by(table.id).first()

    def run(self, attempt: int = 1, key: str = KEY) -> TrainingRun:
        with self.connections.database.read() as session:
            return session.query(TrainingRun).filter_by(user_id=key, attempt=attempt).one()

    def image(self, sha: str) -> Image:
        with self.connections.database.read() as session:
            return session.query(Image).filter_by(sha256=sha).order_by(Image.id).first()  # type: ignore[return-value]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def story(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    _session_simulator: RunningSimulator,
) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), folder / "lora.sqlite3")
        address = f"sqlite:///{folder / 'lora.sqlite3'}"
    else:
        server = request.getfixturevalue("postgres_server")
        address = _named(server, f"story_{folder.name}", template="template_lora")
    _session_simulator.reset()
    connections = Connections(
        Settings(
            home=folder / "home",
            database_url=address,
            replicate_api_token=SecretStr("r8_test"),
            replicate_base_url=_session_simulator.url,
            image_profile="demo",
            ready_images=5,
            ready_quiet=timedelta(0),
        )
    )
    yield _tell(connections, _session_simulator, folder)
    connections.database.close()


def _tell(connections: Connections, simulator: RunningSimulator, folder: Path) -> Story:
    inbox = connections.settings.home / "inbox"
    first = drop_photographs(inbox / KEY, 5)
    # Another format, so that what it is normalised to is another file.
    picture = Picture.open(first[4])
    first[4] = first[4].rename(first[4].with_suffix(".png"))
    picture.save(first[4])
    small = inbox / KEY / "small.jpg"
    Picture.open(first[0]).resize((120, 100)).save(small)
    others = drop_photographs(inbox / OTHER, 5, picture="coffee.png")
    shutil.copyfile(first[0], others[0])
    start_ready(connections, lease=None)
    _finish(connections, simulator)
    later = drop_photographs(inbox / KEY, 2, first=5)
    start_ready(connections, lease=None)
    _finish(connections, simulator)
    drop_photographs(inbox / UNTRAINED, 5, picture="rocket.jpg")
    prepare_image_set(connections, UNTRAINED)
    tree = folder / "old"
    write(style_file(tree, 1), {"versions": [FAILED, WEBHOOK_ENTRY, SYNCED_ENTRY]})
    import_tree(connections.database, tree, ObjectUrlRules(), connections.now(), apply=True)
    return Story(
        connections,
        tuple(_hash(path) for path in (*first, *later)),
        _hash(small),
    )


def _finish(connections: Connections, simulator: RunningSimulator) -> None:
    simulator.advance(7200)
    work = follow_and_find_work(connections)
    assert not finalise_succeeded(connections, lease=work.lease, say=lambda _: None).failures


def _hash(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
