"""How long a training may stay in each state before somebody should look. Pure.

A deadline changes nothing by itself: it says which training, since when, why, and what to do. Only a person,
or the provider's answer, ends a training that is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lora_pipeline.trainings.lifecycle import FOLLOWED, TrainingState


@dataclass(frozen=True)
class StuckRules:
    """The deadlines. Held and lost trainings wait for a person from the first moment."""

    unsent: timedelta = timedelta(hours=1)
    """Opened or packed, and not sent."""
    unknown: timedelta = timedelta(minutes=30)
    """Sent, and nobody knows whether it arrived: twice the time in which reconciliation decides."""
    queued: timedelta = timedelta(minutes=30)
    """A provider was seen to forget trainings that had not started by then."""
    running_factor: float = 3.0
    """Times the expected duration. Trainings were measured at 0.64-1.14 s a step, so twice is still weather."""
    running_at_least: timedelta = timedelta(minutes=30)
    """No training counts as too long before this, however short the others were."""
    finishing: timedelta = timedelta(minutes=30)
    """Succeeded and not finalised: all tries at its weights take minutes."""
    cancelling: timedelta = timedelta(minutes=15)
    """Its cancel asked for, and the provider has not ended it."""


@dataclass(frozen=True)
class WaitingRun:
    """One open run, as far as its deadlines need it."""

    run_id: int
    model_key: str
    state: TrainingState
    since: datetime
    """When it came into its state."""
    training_id: str | None = None
    cancel_requested_at: datetime | None = None
    reason: str | None = None
    """What is written down about why it waits."""
    outputs_known: bool = False
    choices: str = ""
    """The decisions that fit it, as options of `trainings resolve`."""
    expected_seconds: float = 0.0


@dataclass(frozen=True)
class StuckTraining:
    """One training that somebody should look at."""

    run_id: int
    model_key: str
    state: TrainingState
    since: datetime
    why: str
    next_command: str
    serious: bool
    """Whether money may be running, or a person must decide; False where it merely waits."""


def find_stuck(
    run: WaitingRun, now: datetime, rules: StuckRules, *, paused: str | None
) -> StuckTraining | None:
    """Why a run counts as stuck and what to do, or None. `paused` is why submissions are paused, if they are."""
    if run.cancel_requested_at is not None and run.state in FOLLOWED:
        return _cancelling(run, run.cancel_requested_at, now, rules)
    age = now - run.since
    match run.state:
        case TrainingState.READY | TrainingState.PACKED if age > rules.unsent:
            return _unsent(run, paused)
        case TrainingState.INTENT if age > rules.unknown:
            why = "it was sent, and nobody knows whether it arrived. Is training_status_sensor running?"
            return _stuck(run, why, "lora-pipeline doctor")
        case TrainingState.SUBMITTED if age > rules.queued:
            why = f"the provider has not started {run.training_id} after {_minutes(age)}"
            return _stuck(run, why, f"lora-pipeline trainings cancel {run.run_id}")
        case TrainingState.RUNNING if age > _longest(run, rules):
            why = (
                f"it has run for {_minutes(age)}, and {_minutes(timedelta(seconds=run.expected_seconds))} were "
                "expected. It bills until it ends"
            )
            return _stuck(run, why, f"lora-pipeline trainings cancel {run.run_id}")
        case TrainingState.SUCCEEDED if age > rules.finishing:
            return _unfinished(run, age)
        case TrainingState.HELD | TrainingState.LOST:
            why = run.reason or f"it is {run.state}"
            return _stuck(run, why, f"lora-pipeline trainings resolve {run.run_id} {run.choices}")
    return None


def _longest(run: WaitingRun, rules: StuckRules) -> timedelta:
    return max(timedelta(seconds=run.expected_seconds) * rules.running_factor, rules.running_at_least)


def _cancelling(
    run: WaitingRun, asked_at: datetime, now: datetime, rules: StuckRules
) -> StuckTraining | None:
    if now - asked_at <= rules.cancelling:
        return None
    why = (
        f"its cancel was asked for {_minutes(now - asked_at)} ago and the provider has not ended "
        f"{run.training_id}: it bills. End it on the provider's page if it goes on"
    )
    command = f"lora-pipeline trainings cancel {run.run_id}"
    return StuckTraining(run.run_id, run.model_key, run.state, asked_at, why, command, serious=True)


def _unsent(run: WaitingRun, paused: str | None) -> StuckTraining:
    if paused is not None:
        why, command = f"submissions are paused: {paused}", "lora-pipeline trainings resume"
    elif run.reason:
        why, command = run.reason, f"lora-pipeline trainings show {run.run_id}"
    else:
        why = "nothing keeps it from being sent. Is image_set_sensor running, and LORA_AUTO_SUBMIT on?"
        command = f"lora-pipeline train {run.model_key}"
    return StuckTraining(run.run_id, run.model_key, run.state, run.since, why, command, serious=False)


def _unfinished(run: WaitingRun, age: timedelta) -> StuckTraining:
    if not run.outputs_known:
        why = (
            f"the provider said succeeded {_minutes(age)} ago and has not named the version and its weights: look "
            f"at {run.training_id} on its page"
        )
        return _stuck(run, why, f"lora-pipeline trainings resolve {run.run_id} {run.choices}")
    why = (
        f"its weights are not verified {_minutes(age)} after it succeeded: {run.reason or 'nobody has tried'}"
    )
    return _stuck(run, why, "lora-pipeline doctor")


def _stuck(run: WaitingRun, why: str, command: str) -> StuckTraining:
    return StuckTraining(run.run_id, run.model_key, run.state, run.since, why, command.strip(), serious=True)


def _minutes(duration: timedelta) -> str:
    minutes = round(duration.total_seconds() / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
