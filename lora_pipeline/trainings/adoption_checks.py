"""Whether a job that a person names may become a run's job. Pure.

The mark decides where there is one: a dataset address carries it as long as the provider keeps the input.
Without a mark only what the provider still says can speak against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_pipeline.identity import IdentityError, parse_model, parse_version
from lora_pipeline.providers.protocol import TrainingJob


@dataclass(frozen=True)
class Expected:
    """What the run's own job must look like."""

    marks: frozenset[str]
    """The run's token, and the id of the file it handed to the provider."""
    trainer: str
    destination: str


def objection_to_adopting(job: TrainingJob, marks: tuple[str, ...], expected: Expected) -> str | None:
    """Why `job`, whose dataset address carries `marks`, cannot be the expected run's; None where it may be."""
    if expected.marks.intersection(marks):
        return None
    if marks:
        return f"{job.id} was started with another dataset: its address carries a mark that is not this run's"
    if job.trainer_version is None or _hash(job.trainer_version) != _hash(expected.trainer):
        return f"{job.id} was trained by {job.trainer_version or 'an unknown trainer'}, expected {expected.trainer}"
    if job.output_version is not None and not _is_of(job.output_version, expected.destination):
        return f"{job.id} made {job.output_version}, expected a version of {expected.destination}"
    return None


def _hash(version: str) -> str:
    try:
        return parse_version(version).hash
    except IdentityError:
        return version


def _is_of(version: str, destination: str) -> bool:
    try:
        parse_version(version).of_model(parse_model(destination))
    except IdentityError:
        return False
    return True
