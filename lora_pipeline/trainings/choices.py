"""Which decisions fit a training that waits for a person, as options of `trainings resolve`. Pure."""

from __future__ import annotations

from lora_pipeline.trainings.lifecycle import TrainingState


def choices_for(state: TrainingState, *, paid: bool, outputs_known: bool) -> str:
    """The options that fit, empty where no decision is needed.

    `paid` says that the provider succeeded, `outputs_known` that it named the version and its weights.
    """
    match state:
        case TrainingState.HELD:
            return "--retry | --abandon" if paid else "--resubmit | --adopt TRAINING_ID | --abandon"
        case TrainingState.LOST:
            return "--abandon"
        case TrainingState.SUCCEEDED if not outputs_known:
            return "--abandon"
        case TrainingState.INTENT:
            return "--adopt TRAINING_ID"
        case _:
            return ""
