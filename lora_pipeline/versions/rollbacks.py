"""Where a rollback goes, as a rule over a model's activations: always further back, never forth again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PastActivation:
    """One activation, as far as a rollback needs it."""

    activation_id: int
    """Grows with time within a model."""
    version_id: int
    number: int
    has_weights: bool
    restores_id: int | None
    """The earlier activation that a rollback went back to, where one made this."""

    @property
    def place(self) -> int:
        """Where it stands in history: a restored activation stands where it stood the first time."""
        return self.restores_id or self.activation_id


@dataclass(frozen=True)
class StepBack:
    """What a rollback found."""

    to: PastActivation | None
    """None where no other version was served before, or none that has weights."""
    passed_over: tuple[int, ...]
    """Numbers of the versions without weights in between."""


def step_back(activations: Sequence[PastActivation]) -> StepBack:
    """The activation before the present one, which is the newest of `activations` (given in any order)."""
    current = max(activations, key=lambda activation: activation.activation_id)
    passed: dict[int, None] = {}
    for earlier in sorted(activations, key=lambda activation: activation.activation_id, reverse=True):
        if earlier.activation_id >= current.place or earlier.version_id == current.version_id:
            continue
        if earlier.has_weights:
            return StepBack(earlier, tuple(passed))
        passed[earlier.number] = None
    return StepBack(None, tuple(passed))
