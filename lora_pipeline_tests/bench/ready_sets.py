"""A house whose models each have a set that is taken in, normalised and ready to train: made in bulk, for measuring.

One model's photographs are taken in as always; the others are copies of its rows and hard links to its files.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from lora_pipeline.connections import Connections
from lora_pipeline.database.migrate import upgrade
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember, SelfieUpload, User, UserModel
from lora_pipeline.database.tables.base import Base
from lora_pipeline.image_sets.intake import take_in_from_inbox
from lora_pipeline.settings import Settings
from lora_pipeline_tests.fixtures.photographs import packaged_picture

PHOTOGRAPHS, SIDE = 10, 1_024
"""What a set has at least to become ready by itself, in the size below which the checks warn."""
FIRST = "bench-1"
Row = dict[str, Any]


def make_ready_sets(settings: Settings, sets: int) -> list[str]:
    """A database, a store and an inbox with `sets` models that have been quiet for an hour; the models' keys."""
    upgrade(Database(settings.resolved_database_url))
    if not sets:
        return []
    connections = Connections(settings)
    _photograph(settings.home / "inbox" / FIRST)
    _take_in(connections)
    keys = [f"bench-{number}" for number in range(2, sets + 1)]
    for key in keys:
        for folder in (settings.home / "inbox", settings.home / "objects" / "users"):
            shutil.copytree(folder / FIRST, folder / key, copy_function=os.link)
    if keys:
        with connections.database.begin() as session:
            _copy_people(session, keys)
            _copy_images(session, keys)
    connections.database.close()
    return [FIRST, *keys]


def _photograph(folder: Path) -> None:
    """Different crops of one photograph out of scikit-image's wheel (public domain)."""
    from PIL import Image as Pillow

    folder.mkdir(parents=True)
    source = Pillow.open(packaged_picture("astronaut.png")).convert("RGB")
    for number in range(PHOTOGRAPHS):
        left, top = 13 * number % 90, 7 * number % 19
        crop = source.crop((left, top, left + 420, top + 420)).rotate(4 * number)
        crop.resize((SIDE, SIDE)).save(folder / f"photo {number:02}.jpg", quality=90)


def _take_in(connections: Connections) -> None:
    report = take_in_from_inbox(
        connections.database, connections.store, connections.inbox, FIRST, profile=connections.image_profile
    )
    assert report.assessment is not None, report
    assert len(report.assessment.included) == PHOTOGRAPHS, report
    with connections.database.begin() as session:
        session.query(ImageSet).update({"last_image_at": datetime.now(UTC) - timedelta(hours=1)})


def _copy_people(session: Session, keys: list[str]) -> None:
    """The first user, model and set once for each key; ids are counted on."""
    (user,), (model,), (image_set,) = (_rows(session, table) for table in (User, UserModel, ImageSet))
    numbered = list(enumerate(keys, 1))
    session.execute(insert(User), [user | {"id": key, "active_model_id": None} for key in keys])
    session.execute(
        insert(UserModel),
        [
            model
            | {
                "id": model["id"] + turn,
                "user_id": key,
                "model_key": key,
                "model_name": key,
                "trigger_word": key.replace("-", ""),
            }
            for turn, key in numbered
        ],
    )
    session.execute(
        insert(ImageSet),
        [image_set | {"id": image_set["id"] + turn, "model_id": model["id"] + turn} for turn, _ in numbered],
    )


def _copy_images(session: Session, keys: list[str]) -> None:
    """The first model's photographs, their places in its set and their arrivals once for each key."""
    for table in (Image, ImageSetMember, SelfieUpload):
        rows = _rows(session, table)
        session.execute(
            insert(table), [_copied(row, key, turn) for turn, key in enumerate(keys, 1) for row in rows]
        )


def _copied(row: Row, key: str, turn: int) -> Row:
    changed = {
        name: value.replace(f"/{FIRST}/", f"/{key}/") for name, value in row.items() if _is_place(value)
    }
    changed |= {name: row[name] + turn * PHOTOGRAPHS for name in ("id", "image_id") if name in row}
    changed |= {name: row[name] + turn for name in ("model_id", "image_set_id") if name in row}
    return row | changed | ({"user_id": key} if "user_id" in row else {})


def _is_place(value: object) -> bool:
    return isinstance(value, str) and f"/{FIRST}/" in value


def _rows(session: Session, table: type[Base]) -> list[Row]:
    columns = table.__mapper__.column_attrs.keys()
    return [{name: getattr(row, name) for name in columns} for row in session.scalars(select(table))]
