"""An inbox and an object store in folders, and the few words in which these tests fill and use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image, ImageSetMember, SelfieUpload
from lora_pipeline.image_sets.freezing import FrozenSet, freeze_set
from lora_pipeline.image_sets.intake import IntakeReport, take_in_from_inbox
from lora_pipeline.image_sets.profiles import PROFILES, ImageProfile
from lora_pipeline.image_sets.readiness import Readiness, ready_models
from lora_pipeline.objects import ObjectStore, open_store
from lora_pipeline.objects.local import LocalObjectStore
from lora_pipeline_tests.fixtures.s3 import s3_server, s3_store
from lora_pipeline_tests.image_sets.pictures import encoded, scene

__all__ = ["s3_server", "s3_store"]

KEY = "user-50c"
DEMO = PROFILES["demo"]


@dataclass
class House:
    """A database, a store and an inbox, with the operations that the tests ask for again and again."""

    database: Database
    store: ObjectStore
    inbox: ObjectStore
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)  # after every file that a test writes

    def clock(self) -> datetime:
        return self.now

    def put(self, files: Mapping[str, bytes], key: str = KEY) -> None:
        for name, data in files.items():
            if isinstance(self.inbox, LocalObjectStore):  # as people drop files, which need no syncing here
                path = self.inbox.folder / key / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            else:
                self.inbox.put_bytes(f"{key}/{name}", data)

    def take_in(self, key: str = KEY, profile: ImageProfile = DEMO) -> IntakeReport:
        return take_in_from_inbox(
            self.database, self.store, self.inbox, key, profile=profile, clock=self.clock
        )

    def freeze(
        self, key: str = KEY, profile: ImageProfile = DEMO, zip_limit_bytes: int | None = None
    ) -> FrozenSet:
        return freeze_set(
            self.database,
            self.store,
            key,
            profile=profile,
            zip_limit_bytes=zip_limit_bytes,
            clock=self.clock,
        )

    def ready(self, ready_images: int = 5, quiet: timedelta = timedelta(minutes=10)) -> Readiness:
        return ready_models(
            self.database, self.inbox, ready_images=ready_images, ready_quiet=quiet, now=self.now
        )

    def ready_keys(self, ready_images: int = 5) -> list[str]:
        return [model.model_key for model in self.ready(ready_images).ready]

    def counts(self) -> tuple[int, int, int]:
        """Rows of images, members and uploads."""
        with self.database.read() as session:
            return (
                session.query(Image).count(),
                session.query(ImageSetMember).count(),
                session.query(SelfieUpload).count(),
            )


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    return House(database, open_store(str(tmp_path / "objects")), open_store(str(tmp_path / "inbox")))


def folder_of(store: ObjectStore) -> Path:
    """Where a store that is a folder lies."""
    assert isinstance(store, LocalObjectStore)
    return store.folder


@cache
def small(seed: int) -> bytes:
    """A photograph that the demo profile has nothing against, quickly made."""
    return encoded(scene(seed, (320, 300)), quality=90)


def photographs(count: int, start: int = 0) -> dict[str, bytes]:
    return {f"photo-{number:02}.jpg": small(number) for number in range(start, start + count)}
