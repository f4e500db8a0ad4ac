"""What the settings say about starting trainings, in the words of the operations."""

from __future__ import annotations

from dataclasses import dataclass

from lora_pipeline.trainings.submission import SubmissionRules


@dataclass(frozen=True)
class StartRules:
    """Which trainer, under which account, and what may be spent."""

    trainer: str
    """`owner/name:64hex`, pinned; `runpod/ENDPOINT` where a worker of our own trains."""
    owner: str | None
    """The account that owns destinations; the token's own if None."""
    submission: SubmissionRules
