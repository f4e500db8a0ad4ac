"""Wrong algorithms, each of which looks right until something happens at the wrong moment.

They are here so that the proofs can be seen to fail: an exploration that does not catch them proves nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from lora_pipeline.database.tables import ModelVersion, TrainingRun, UserModel
from lora_pipeline.providers.protocol import (
    NotFound,
    ProviderError,
    TrainingJob,
    TrainingRequest,
    UnknownOutcome,
)
from lora_pipeline.providers.runpod_worker import weights_key
from lora_pipeline.trainings.adoption import adopt, jobs_by_mark
from lora_pipeline.trainings.finalisation import finalisable
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.outbox import acknowledge, claim
from lora_pipeline.trainings.reconciliation import ReconcileRules, settle, unknown_submissions
from lora_pipeline.trainings.transitions import move, observe
from lora_pipeline.versions.activation import activate
from lora_pipeline_tests.proofs.account import FakeProvider
from lora_pipeline_tests.proofs.unlisted import BUCKET
from lora_pipeline_tests.proofs.world import (
    GRACE,
    OURS,
    Operations,
    World,
    finalise,
    follow,
    runs_in,
    submit,
)

# Five looks at the thirty seconds between two ticks: longer than any request of these proofs takes to be listed.
_LOOKS = 5


def _send_again(world: World, run_id: int) -> None:
    with world.database.begin() as session:
        run = session.get_one(TrainingRun, run_id, with_for_update=True)
        run.post_started_at = run.lease_until = run.not_before = None
        move(session, run, TrainingState.PACKED, world.now())


def _blind_retry(world: World) -> None:
    """No answer came, so it is sent once more."""
    before = runs_in(world, TrainingState.PACKED)
    submit(world)
    for run_id in set(before) & set(runs_in(world, TrainingState.INTENT)):
        _send_again(world, run_id)


def _resubmit_without_looking(world: World) -> None:
    """A process that starts finds an intent that nobody works on, so it was never sent."""
    for run_id in runs_in(world, TrainingState.INTENT):
        _send_again(world, run_id)
    submit(world)


def _submit_without_lease(world: World) -> None:
    """It is packed, so nobody has sent it."""
    for run_id in runs_in(world, TrainingState.PACKED):
        with world.database.read() as session:
            run = session.get_one(TrainingRun, run_id)
        with world.database.begin() as session:
            mine = session.get_one(TrainingRun, run_id)
            mine.post_started_at = world.now()
            move(session, mine, TrainingState.INTENT, world.now())
        url = world.store.presign_get(run.zip_key or "", timedelta(hours=1))
        request = TrainingRequest(run.trainer_requested, run.destination, {"input_images": url})
        try:
            job = world.provider.create_training(request)
        except UnknownOutcome:
            continue
        with world.database.begin() as session:
            adopt(session, run_id, job, True, world.now())


def _hold_after_any_walk(world: World) -> None:
    """What the pages that could be read do not show is not there."""
    unknown = unknown_submissions(world.database, "replicate")
    seen: list[TrainingJob] = []
    try:
        for page in world.provider.list_trainings():
            seen += page.jobs
    except ProviderError:
        pass
    settle(
        world.database,
        unknown,
        jobs_by_mark(seen),
        looked_in_vain=[one.run_id for one in unknown],
        simulated=True,
        rules=ReconcileRules(GRACE),
        looked_at=world.now(),
        now=world.now(),
    )
    follow(world)


def _count_looks(world: World) -> None:
    """Five looks without finding it are two and a half minutes, because a tick comes every thirty seconds."""
    follow(world)
    for run_id in runs_in(world, TrainingState.INTENT):
        with world.database.begin() as session:
            run = session.get_one(TrainingRun, run_id)
            run.finalise_attempts += 1
            looks = run.finalise_attempts
        if looks >= _LOOKS:
            _send_again(world, run_id)


def _acknowledge_what_is_emitted(world: World) -> None:
    """The events are on their way to Dagster, so they are done."""
    batch = claim(world.database, limit=2)
    if batch is None:
        return
    acknowledge(world.database, batch.token, world.now())
    for event in batch.events:
        world.dagster.events = (*world.dagster.events, event.event_id)
        world.steps.done("Dagster stored an event")


def _serve_then_verify(world: World) -> None:
    """The provider says that it succeeded, so its version can be served while the weights are fetched."""
    for run_id in finalisable(world.database, world.now(), 10):
        with world.database.begin() as session:
            run = session.get_one(TrainingRun, run_id)
            model = session.get_one(UserModel, run.model_id, with_for_update=True)
            known = session.scalars(
                select(ModelVersion).where(ModelVersion.provider_version == run.output_version)
            )
            if known.one_or_none() is None:
                now = world.now()
                version = ModelVersion(
                    model_id=model.id,
                    number=1,
                    provider=run.provider,
                    provider_version=run.output_version,
                    weights_url=run.output_artifact_url,
                    trigger_word=run.trigger_word,
                    lora_scale=1.0,
                    created_at=now,
                    updated_at=now,
                )
                session.add(version)
                session.flush()
                activate(session, model, version, actor="mutant", reason="it succeeded", now=now)
    finalise(world)


class _Listing:
    """RunPod taken for a provider with a list, which is empty."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        if name == "find_training":
            raise AttributeError(name)
        return getattr(self._provider, name)


def _trust_the_empty_list(world: World) -> None:
    """The list was read to its end: what it does not show is not there."""
    follow(world, _Listing(world.provider))


def _fail_what_is_denied(world: World) -> None:
    """It answers 404: there is no such training, so it has failed."""
    for run_id, job_id in _followed(world):
        try:
            world.provider.get_training(job_id)
        except NotFound as error:
            with world.database.begin() as session:
                run = session.get_one(TrainingRun, run_id, with_for_update=True)
                move(session, run, TrainingState.FAILED, world.now(), reason=str(error))
    follow(world)


def _believe_the_status(world: World) -> None:
    """It says TIMED_OUT, so nothing came of it."""
    for run_id, job_id in _followed(world):
        with suppress(ProviderError):
            job = world.provider.get_training(job_id)
            with world.database.begin() as session:
                observe(session, {run_id: job}, world.now())
    follow(world)


def _followed(world: World) -> list[tuple[int, str]]:
    with world.database.read() as session:
        runs = runs_in(world, TrainingState.SUBMITTED, TrainingState.RUNNING)
        return [(run_id, str(session.get_one(TrainingRun, run_id).training_id)) for run_id in runs]


def _register_what_is_completed(world: World) -> None:
    """It says COMPLETED, so the weights are where they were to be left."""
    for run_id in runs_in(world, TrainingState.SUCCEEDED):
        with world.database.begin() as session:
            run = session.get_one(TrainingRun, run_id)
            run.output_artifact_url = f"{BUCKET}/{weights_key(run.token, run.destination)}"
    _serve_then_verify(world)


def _note_the_look_first(world: World) -> None:
    """It is being looked for, so it has been looked for."""
    for run_id in runs_in(world, TrainingState.HELD):
        with world.database.begin() as session:
            session.get_one(TrainingRun, run_id).last_polled_at = world.now()
    follow(world)


BLIND_RETRY: Operations = replace(OURS, submit=_blind_retry)
RESUBMIT_WITHOUT_LOOKING: Operations = replace(OURS, submit=_resubmit_without_looking)
NO_LEASE: Operations = replace(OURS, submit=_submit_without_lease)
HOLD_AFTER_ANY_WALK: Operations = replace(OURS, follow=_hold_after_any_walk)
FIXED_CADENCE: Operations = replace(OURS, follow=_count_looks)
ACKNOWLEDGE_WHAT_IS_EMITTED: Operations = replace(OURS, emit=_acknowledge_what_is_emitted)
SERVE_THEN_VERIFY: Operations = replace(OURS, finalise=_serve_then_verify)

TRUST_THE_EMPTY_LIST: Operations = replace(OURS, follow=_trust_the_empty_list)
FAIL_WHAT_IS_DENIED: Operations = replace(OURS, follow=_fail_what_is_denied)
BELIEVE_THE_STATUS: Operations = replace(OURS, follow=_believe_the_status)
REGISTER_WHAT_IS_COMPLETED: Operations = replace(OURS, finalise=_register_what_is_completed)
NOTE_THE_LOOK_FIRST: Operations = replace(OURS, follow=_note_the_look_first)
