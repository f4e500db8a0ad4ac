"""Packing: the training ZIP of an opened run, stored under its token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from lora_pipeline.archives import (
    StoredZip,
    TrainingImage,
    caption_with_trigger,
    entries_of,
    store_training_zip,
)
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.image_sets.frozen import FrozenMember, frozen_members
from lora_pipeline.objects import ObjectStore
from lora_pipeline.trainings.facts import zip_event
from lora_pipeline.trainings.lifecycle import TERMINAL, TrainingState
from lora_pipeline.trainings.transitions import move, owe_all


@dataclass(frozen=True)
class PackedTraining:
    """A run whose ZIP is stored."""

    run_id: int
    zip: StoredZip | None
    """None where the run had been packed before."""


def pack_training(
    database: Database,
    store: ObjectStore,
    run_id: int,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    emit: bool = True,
) -> PackedTraining:
    """Build and store the ZIP of a run in `ready`; one that is packed already is left alone.

    Two packers of one run write the same bytes under the same key. Raises TrainingZipError.
    """
    with database.read() as session:
        run = session.get_one(TrainingRun, run_id)
        if run.state != TrainingState.READY:
            return PackedTraining(run_id, None)
        assert run.image_set_id is not None
        model = session.get_one(UserModel, run.model_id)
        members = frozen_members(session, run.image_set_id)
    images = [_image(store, member, run.trigger_word, model) for member in members]
    stored = store_training_zip(store, run.token, entries_of(images))
    with database.begin() as session:
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        if run.state in TERMINAL:
            # Cancelled meanwhile: nobody else knows of these photographs any more.
            store.delete(stored.key)
        if run.state != TrainingState.READY:
            return PackedTraining(run_id, None)
        run.zip_key, run.zip_sha256, run.zip_size = stored.key, stored.sha256, stored.size
        run.dataset_zip_url = stored.address
        move(session, run, TrainingState.PACKED, clock())
        if emit:
            owe_all(session, [zip_event(run, model.model_key)], clock())
    return PackedTraining(run_id, stored)


def _image(store: ObjectStore, member: FrozenMember, trigger: str, model: UserModel) -> TrainingImage:
    return TrainingImage(
        size=member.size,
        open=partial(store.stream, member.normalised_key),
        caption=caption_with_trigger(member.caption, trigger, model.model_type, model.gender),
        crc32=member.crc32,
    )
