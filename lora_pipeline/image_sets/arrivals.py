"""What lies in an inbox and has not been taken in. Reads listings and rows, never a photograph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, or_, select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import SelfieUpload, UserModel
from lora_pipeline.erasure.names import Name, erased_among
from lora_pipeline.image_sets.inbox import InboxFolder, scan_inbox
from lora_pipeline.image_sets.models import erased_says
from lora_pipeline.image_sets.sources import ImageSource
from lora_pipeline.objects.store import ObjectStore

BATCH = 500
"""Models a query: few enough rows to hold, few enough queries for ten thousand models."""

RETRY_AFTER = timedelta(minutes=10)
"""A file that nobody may read would otherwise start a batch at every tick."""


@dataclass(frozen=True)
class Arrivals:
    """New files for one model. `model_id` is None before the model is known; `problem` says why none can be taken."""

    folder: InboxFolder
    model_id: int | None
    sources: tuple[ImageSource, ...]
    erased: str | None = None
    """What is to be said where the model was erased: nothing of it is taken in."""

    @property
    def model_key(self) -> str:
        return self.folder.model_key

    @property
    def problem(self) -> str | None:
        return self.folder.problem or self.erased


def new_arrivals(
    database: Database, inbox: ObjectStore, model_key: str | None = None, *, now: datetime | None = None
) -> Iterator[Arrivals]:
    """Every folder (or one model's) with files that were not taken in, or that changed since.

    Files that could not be read or stored less than RETRY_AFTER before `now` are left out; without `now` they are
    tried again. Raises ObjectStoreError where the inbox cannot be listed.
    """
    folders = scan_inbox(inbox, model_key)
    while batch := list(islice(folders, BATCH)):
        yield from _new_in(database, inbox, batch, now)


def _new_in(
    database: Database, inbox: ObjectStore, folders: Sequence[InboxFolder], now: datetime | None
) -> list[Arrivals]:
    with database.read() as session:
        keys = [folder.model_key for folder in folders if folder.problem is None]
        models = session.execute(
            select(UserModel.model_key, UserModel.id).where(UserModel.model_key.in_(keys))
        )
        ids = {row.model_key: row.id for row in models}
        seen = session.execute(
            select(SelfieUpload.model_id, SelfieUpload.original_url, SelfieUpload.source_fingerprint).where(
                SelfieUpload.model_id.in_(ids.values()), _settled(now)
            )
        )
        done = {tuple(row) for row in seen}
        gone = {
            key: erased_says(f"the model of the folder {key!r}", found)
            for key, found in erased_among(session, set(keys) - set(ids), Name.MODEL).items()
        }
    arrivals = []
    for folder in folders:
        model_id = ids.get(folder.model_key)
        new = [
            folder.source(inbox, info)
            for info in folder.images
            if (model_id, inbox.address(info.key), folder.fingerprint(info)) not in done
        ]
        if new or folder.problem:
            arrivals.append(Arrivals(folder, model_id, tuple(new), gone.get(folder.model_key)))
    return arrivals


def _settled(now: datetime | None) -> ColumnElement[bool]:
    done = SelfieUpload.processing_status != "pending"
    return done if now is None else or_(done, SelfieUpload.updated_at > now - RETRY_AFTER)
