"""The lifecycle of one training run as a pure, monotonic state machine.

Whatever order webhook, poll and reconciliation arrive in, and however often, the last state is the same,
because an observation may only move a run forwards and a terminal state is never left.
"""

from __future__ import annotations

from enum import StrEnum

from lora_pipeline.providers.protocol import JobState


class TrainingState(StrEnum):
    """The internal states. `SHOWN_STATUS` gives the words that applications see."""

    READY = "ready"
    """The run and its token are committed; the ZIP is not stored yet."""
    PACKED = "packed"
    """The ZIP is stored under the token; the provider surely knows nothing."""
    INTENT = "intent"
    """The creation request may have left: the provider may or may not know of the training."""
    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """The provider is done; the weights are not verified yet."""
    FINALISED = "finalised"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"
    LOST = "lost"
    """The provider no longer knows the job; not terminal."""
    HELD = "held"
    """A person decides; not terminal."""


TERMINAL = frozenset(
    {TrainingState.FINALISED, TrainingState.FAILED, TrainingState.CANCELED, TrainingState.ABORTED}
)
OPEN = frozenset(TrainingState) - TERMINAL
IN_PROGRESS = frozenset(
    {TrainingState.SUBMITTED, TrainingState.RUNNING, TrainingState.SUCCEEDED, TrainingState.LOST}
)
FOLLOWED = frozenset({TrainingState.SUBMITTED, TrainingState.RUNNING, TrainingState.LOST})
"""States whose next step only the provider can tell."""

SHOWN_STATUS: dict[TrainingState, str] = {
    TrainingState.READY: "pending",
    TrainingState.PACKED: "pending",
    TrainingState.INTENT: "pending",
    TrainingState.SUBMITTED: "starting",
    TrainingState.RUNNING: "training",
    TrainingState.SUCCEEDED: "training",
    TrainingState.FINALISED: "completed",
    TrainingState.FAILED: "failed",
    TrainingState.CANCELED: "canceled",
    TrainingState.ABORTED: "failed",
    TrainingState.LOST: "training",
    TrainingState.HELD: "training",
}

SUCCEEDED_PROGRESS = 99
"""What is shown between the provider's success and verified weights; 100 means registered."""

_ENDED: dict[JobState, TrainingState] = {
    JobState.FAILED: TrainingState.FAILED,
    JobState.CANCELED: TrainingState.CANCELED,
    JobState.ABORTED: TrainingState.ABORTED,
}
_FORWARD = [TrainingState.SUBMITTED, TrainingState.RUNNING, TrainingState.SUCCEEDED]


def next_state(current: TrainingState, seen: JobState) -> TrainingState | None:
    """The state that a run moves to when its provider's job is seen like this; None for no move.

    `held` and the states before submission do not move by being seen: adoption (which stores the job id)
    comes first, and a hold on verified grounds is a person's to lift. `lost` comes back to life.
    """
    if current not in FOLLOWED:
        return None
    if seen in _ENDED:
        return _ENDED[seen]
    wanted = {
        JobState.QUEUED: TrainingState.SUBMITTED,
        JobState.RUNNING: TrainingState.RUNNING,
        JobState.SUCCEEDED: TrainingState.SUCCEEDED,
    }.get(seen)
    if wanted is None:
        return None
    if current is TrainingState.LOST:
        return wanted
    return wanted if _FORWARD.index(wanted) > _FORWARD.index(current) else None
