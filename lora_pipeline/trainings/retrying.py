"""Trying again what ended badly: a new attempt for a training that failed, new tries for refused weights.

A retry is a new run with its own token on the same frozen image set; the old one stays as it ended. The
model's served version is not touched by either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import AuditEntry, TrainingRun
from lora_pipeline.providers.protocol import TrainingProvider
from lora_pipeline.trainings.intents import TrainingRefused, TrainingWish, open_training
from lora_pipeline.trainings.lifecycle import TrainingState
from lora_pipeline.trainings.packing import pack_training
from lora_pipeline.trainings.parameters import overridable
from lora_pipeline.trainings.runs import locked_run, model_key_of, provider_of
from lora_pipeline.trainings.submission import SubmissionResult, submit_training
from lora_pipeline.trainings.transitions import move

ENDED_BADLY = frozenset({TrainingState.FAILED, TrainingState.CANCELED, TrainingState.ABORTED})


@dataclass(frozen=True)
class Retried:
    """What stands for the retry now."""

    run_id: int
    """The new attempt, or the same run where only its weights are tried again."""
    model_key: str
    new_attempt: bool
    """True where a run was opened that is still to be packed, submitted and paid for."""
    explanation: str


def retry_training(
    database: Database,
    provider: TrainingProvider,
    run_id: int,
    actor: str,
    clock: Callable[[], datetime],
    *,
    trainer: str,
    owner: str | None,
) -> Retried:
    """Try a training again: a new attempt where it ended badly, its weights where only those were refused.

    A new attempt has the same image set, policy and parameters, as far as `trainer` knows them. Raises
    TrainingRefused where there is nothing to try again, and what `open_training` raises.
    """
    with database.begin() as session:
        run = locked_run(session, run_id)
        model_key = model_key_of(session, run)
        objection = _objection(run)
        if objection is not None:
            raise TrainingRefused(f"training run {run_id} of {model_key} cannot be retried: {objection}")
        if run.state == TrainingState.HELD:
            _try_weights_again(run, clock())
            move(session, run, TrainingState.SUCCEEDED, clock())
            session.add(_audit(run, model_key, actor, "retry weights", clock()))
            return Retried(
                run_id, model_key, False, "its weights are fetched and verified again at the next batch"
            )
    return _new_attempt(database, provider, run, model_key, actor, clock, trainer=trainer, owner=owner)


def weights_refused(run: TrainingRun) -> bool:
    """Whether a run is held because its weights were not accepted: it succeeded, and is paid for."""
    return run.state == TrainingState.HELD and run.succeeded_at is not None


def _objection(run: TrainingRun) -> str | None:
    """Why a run cannot be retried; None where it can."""
    if weights_refused(run):
        return None
    if run.state in (TrainingState.HELD, TrainingState.LOST):
        return f"it is {run.state}. Decide first: lora-pipeline trainings resolve {run.id}"
    if run.state == TrainingState.FINALISED:
        return "it ended well. To train anew: lora-pipeline train MODEL"
    if run.state not in ENDED_BADLY:
        return f"it is {run.state}. To end it: lora-pipeline trainings cancel {run.id}"
    if run.image_set_id is None:
        return "the image set that it was trained from is not known here. Upload the images and train anew"
    return None


def _try_weights_again(run: TrainingRun, now: datetime) -> None:
    run.finalise_attempts = 0
    run.not_before = run.lease_token = run.lease_until = run.error = None
    run.updated_at = now


def _new_attempt(
    database: Database,
    provider: TrainingProvider,
    run: TrainingRun,
    model_key: str,
    actor: str,
    clock: Callable[[], datetime],
    *,
    trainer: str,
    owner: str | None,
) -> Retried:
    assert run.image_set_id is not None
    known = provider.input_schema(trainer).get("properties", {})
    same = {name: value for name, value in overridable(run.parameters).items() if name in known}
    wish = TrainingWish(model_key, run.image_set_id, actor, run.parameter_policy, same)
    opened = open_training(database, provider, wish, trainer=trainer, owner=owner, now=clock())
    if not opened.created:
        return Retried(
            opened.run_id,
            model_key,
            False,
            f"training run {opened.run_id} of the same images is open already",
        )
    with database.begin() as session:
        session.add(_audit(run, model_key, actor, "retry training", clock(), new_run=opened.run_id))
    return Retried(
        opened.run_id, model_key, True, f"attempt {run.attempt} ended as {run.state}; a new one is opened"
    )


def _audit(
    run: TrainingRun, model_key: str, actor: str, action: str, now: datetime, **more: object
) -> AuditEntry:
    return AuditEntry(at=now, actor=actor, action=action, subject=model_key, details={"run": run.id, **more})


def retry_now(
    connections: Connections, run_id: int, actor: str, say: Callable[[str], object] = lambda _: None
) -> tuple[Retried, SubmissionResult | None]:
    """Retry because a person asked, and send a new attempt at once; None where nothing is to be sent.

    Raises what `retry_training`, packing and submission raise.
    """
    database, store, provider = connections.database, connections.store, provider_of(connections, run_id)
    rules = connections.start_rules(provider.name)
    retried = retry_training(
        database, provider, run_id, actor, connections.now, trainer=rules.trainer, owner=rules.owner
    )
    if not retried.new_attempt:
        return retried, None
    say("packing the training ZIP")
    pack_training(database, store, retried.run_id)
    say("submitting")
    return retried, submit_training(database, store, provider, retried.run_id, rules.submission)
