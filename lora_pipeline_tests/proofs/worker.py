"""A process of ours as it really runs, for being killed: submit, follow, finalise and emit, over real HTTP."""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier

from sqlalchemy import select

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import TrainingRun
from lora_pipeline.objects import ObjectStoreError, open_store
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.providers.replicate import ReplicateProvider
from lora_pipeline.simulator.server import serve
from lora_pipeline.simulator.settings import SimulatorSettings
from lora_pipeline.trainings.costs import DailyCaps
from lora_pipeline.trainings.finalisation import FinalisationRules, finalisable, finalise_training
from lora_pipeline.trainings.following import FollowRules, follow_trainings
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.reconciliation import ReconcileRules
from lora_pipeline.trainings.submission import SubmissionRules, submit_training

LEASE = timedelta(seconds=2)
GRACE = timedelta(seconds=4)
SUBMIT = SubmissionRules(DailyCaps(1_000, 1_000.0), lease=LEASE)
FOLLOW = FollowRules(timedelta(seconds=2), ReconcileRules(GRACE))
FINALISE = FinalisationRules(cap_bytes=50_000_000, lease=LEASE)


def work(database_url: str, store_root: str, provider_url: str, seed: int) -> None:
    """Everything that is to be done, again and again, in an order that the seed decides."""
    logging.disable(logging.CRITICAL)
    chance = random.Random(seed)
    database, store = Database(database_url), open_store(store_root)
    provider = ReplicateProvider(provider_url, "r8_test", timeout=5.0)

    def submit() -> None:
        packed = packed_runs(database)
        chance.shuffle(packed)
        for run_id in packed[:5]:
            submit_training(database, store, provider, run_id, SUBMIT)

    def follow() -> None:
        follow_trainings(database, provider, FOLLOW)

    def finalise() -> None:
        for run_id in finalisable(database, datetime.now(UTC), 5):
            finalise_training(database, store, provider, run_id, FINALISE)

    while True:
        try:
            chance.choice((submit, submit, follow, finalise))()
        except (ProviderError, ObjectStoreError):
            continue
        time.sleep(0.005)


def submit_everything(database_url: str, store_root: str, provider_url: str, start: Barrier) -> None:
    """Submit every packed run as soon as the other process does."""
    logging.disable(logging.CRITICAL)
    database, store = Database(database_url), open_store(store_root)
    provider = ReplicateProvider(provider_url, "r8_test", timeout=5.0)
    packed = packed_runs(database)
    start.wait(timeout=60)
    for run_id in packed:
        submit_training(database, store, provider, run_id, SUBMIT)


def packed_runs(database: Database) -> list[int]:
    with database.read() as session:
        return list(
            session.scalars(
                select(TrainingRun.id)
                .where(TrainingRun.state == TrainingState.PACKED)
                .order_by(TrainingRun.id)
            )
        )


def simulate(port: int) -> None:
    """The provider: a training takes about three seconds, and is listed a moment after it was created."""
    settings = SimulatorSettings(
        speed=60.0,
        list_lag_s=0.3,
        lora_blocks=1,
        lora_width=16,
        create_per_minute=None,
        others_per_minute=None,
    )
    serve(settings, "127.0.0.1", port)
