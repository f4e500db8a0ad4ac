"""Datasets of ended trainings: photographs of people must not outlive the training they were sent for."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.providers.protocol import ProviderError, TrainingProvider
from lora_pipeline.trainings.lifecycle import TERMINAL

log = logging.getLogger(__name__)


def delete_ended_datasets(
    database: Database, store: ObjectStore, provider: TrainingProvider, now: datetime, limit: int = 500
) -> int:
    """Delete the ZIPs (ours, and the provider's copy) of trainings that have ended; how many runs were cleaned.

    The images and the manifest stay: the same ZIP, to the byte, can be packed from them again.
    """
    if database.observing:
        return 0
    with database.read() as session:
        ended = session.scalars(
            select(TrainingRun)
            .where(
                TrainingRun.provider == provider.name,
                TrainingRun.state.in_(TERMINAL),
                TrainingRun.zip_key.is_not(None),
                TrainingRun.zip_deleted_at.is_(None),
            )
            .order_by(TrainingRun.id)
            .limit(limit)
        ).all()
    cleaned = []
    for run in ended:
        assert run.zip_key is not None
        try:
            if run.provider_file_id:
                provider.delete_file(run.provider_file_id)
        except ProviderError as error:
            # The provider's copy expires by itself after a day; ours must not wait for it.
            log.warning("dataset of run %s stays at the provider until it expires: %s", run.id, error)
        store.delete(run.zip_key)
        cleaned.append(run.id)
    with database.begin() as session:
        for run in session.scalars(select(TrainingRun).where(TrainingRun.id.in_(cleaned))):
            run.zip_deleted_at, run.dataset_zip_url = now, None
    return len(cleaned)
