"""The one creation request of a packed training, and what must be at the provider before it may leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lora_pipeline.database.sessions import Database, changed_rows
from lora_pipeline.database.tables import TrainingRun, UserModel
from lora_pipeline.objects.store import ObjectStore
from lora_pipeline.providers.protocol import (
    ProviderUnavailable,
    TrainingProvider,
    TrainingRequest,
    UnknownOutcome,
)
from lora_pipeline.trainings.lifecycle import TrainingState

# A provider queues for hours at worst; a signed dataset URL must outlive the queue but is a bearer secret.
DATASET_URL_LIFE = timedelta(hours=48)


@dataclass(frozen=True)
class PreparedRequest:
    """A packed run as it is about to be sent; the address of its ZIP is a bearer secret."""

    run_id: int
    lease: str
    destination: str
    model_key: str
    simulated: bool
    """Asked before anything is sent: after the creation, no question may stand between the answer and the row."""
    request: TrainingRequest = field(repr=False)


def prepare_request(
    database: Database,
    store: ObjectStore,
    provider: TrainingProvider,
    run_id: int,
    lease: str,
    webhook: str | None,
) -> PreparedRequest | None:
    """Make the destination, and the ZIP reachable for the provider; None where the lease was lost meanwhile.

    A file handed to the provider becomes the token: its id is committed under the lease before anything
    is started, so that a second submitter can never replace the mark of a request already sent.
    """
    simulated = provider.simulated
    with database.read() as session:
        run = session.get_one(TrainingRun, run_id)
        model = session.get_one(UserModel, run.model_id)
        has_destination = model.replicate_model_id == run.destination or _was_trained_into(session, run)
    assert run.zip_key is not None
    if not has_destination:
        # Asking for the training first would count against the provider's limit of creations and bring a 404.
        make_destination(provider, run.destination, model.model_key)
    url = store.presign_get(run.zip_key, DATASET_URL_LIFE)
    if url is None:
        with _local_copy(store, run.zip_key) as content:
            uploaded = provider.upload_file(f"{run.token}.zip", content)
        url = uploaded.url
        with database.begin() as session:
            kept = changed_rows(
                session,
                update(TrainingRun)
                .where(
                    TrainingRun.id == run_id,
                    TrainingRun.state == TrainingState.PACKED,
                    TrainingRun.lease_token == lease,
                )
                .values(provider_file_id=uploaded.id),
            )
        if not kept:
            return None
    inputs: dict[str, Any] = {**run.parameters, "input_images": url}
    request = TrainingRequest(run.trainer_requested, run.destination, inputs, webhook, run.token)
    return PreparedRequest(run_id, lease, run.destination, model.model_key, simulated, request)


def _was_trained_into(session: Session, run: TrainingRun) -> bool:
    earlier = select(TrainingRun.id).where(
        TrainingRun.model_id == run.model_id,
        TrainingRun.destination == run.destination,
        TrainingRun.training_id.is_not(None),
    )
    return session.scalars(earlier.limit(1)).first() is not None


def make_destination(provider: TrainingProvider, destination: str, model_key: str) -> None:
    """Make the model that a training goes into unless it exists; whatever goes wrong, nothing is paid."""
    try:
        provider.ensure_destination(destination, description=f"LoRA of {model_key}")
    except UnknownOutcome as error:
        raise ProviderUnavailable(f"creating the destination {destination}: {error}") from error


@contextmanager
def _local_copy(store: ObjectStore, key: str) -> Iterator[BinaryIO]:
    """The object as a seekable file, which a multipart upload needs; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lora-zip-") as folder:
        path = Path(folder) / "dataset.zip"
        store.download(key, path)
        with path.open("rb") as content:
            yield content
