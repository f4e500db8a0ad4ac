"""RunPod inside the test process: it lists no jobs, forgets results, and its worker leaves weights in the bucket.

What differs from `account.FakeProvider`, which it extends. The bucket is part of it: objects appear by the clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import BinaryIO

from lora_pipeline.providers.protocol import (
    DestinationMissing,
    JobState,
    NotFound,
    ProviderUnavailable,
    Refused,
    Throttled,
    TrainingJob,
    TrainingPage,
    TrainingRequest,
    Unauthenticated,
    UploadedFile,
)
from lora_pipeline.providers.runpod_worker import weights_key
from lora_pipeline_tests.proofs.account import Answer, FakeProvider, Leaves, PaidTraining
from lora_pipeline_tests.proofs.loras import lora_file

KEPT = timedelta(minutes=30)
"""RunPod keeps a result this long after the end."""
BUCKET = "s3://worker"
_SUFFIX = "-u1"
_WORDS = {
    JobState.QUEUED: "IN_QUEUE",
    JobState.RUNNING: "IN_PROGRESS",
    JobState.SUCCEEDED: "COMPLETED",
    JobState.FAILED: "TIMED_OUT",
    JobState.CANCELED: "CANCELLED",
}
_TROUBLE = {
    Answer.NEVER: ProviderUnavailable("no answer arrived"),
    Answer.THROTTLED: Throttled("too many requests", 10.0),
    Answer.LOCKED_OUT: Unauthenticated("the key is wrong"),
}


class UnlistedProvider(FakeProvider):
    """See the module. Creation answers with an id that everything else spells with a suffix, as RunPod's do."""

    name = "runpod"
    denied: frozenset[str] = frozenset()
    """Tokens under which nobody may look into the bucket."""

    def owner(self) -> str:
        return "ep1abcdefg"

    def ensure_destination(self, destination: str, *, description: str) -> None:
        """Nothing: a destination is a file's name."""

    def upload_file(self, name: str, content: BinaryIO) -> UploadedFile:
        raise Refused("RunPod takes no files")

    def create_training(self, request: TrainingRequest) -> TrainingJob:
        try:
            job = super().create_training(request)
        except DestinationMissing:
            raise Refused("RunPod has no such endpoint") from None
        return replace(job, id=job.id.removesuffix(_SUFFIX), mark=None)

    def get_training(self, job_id: str) -> TrainingJob:
        self.steps.reach("before a read")
        trouble = _TROUBLE.get(self._next_read())
        if trouble is not None:
            raise trouble
        found = [one for one in self._remembered() if one.goes_by(job_id)]
        self.steps.reach("after a read")
        if not found:
            raise NotFound(f"no job {job_id}")
        return replace(self._job(found[0]), id=job_id)

    def list_trainings(self) -> Iterator[TrainingPage]:
        self.steps.reach("before a page")
        return iter(())

    def find_training(self, token: str, destination: str) -> TrainingJob | None:
        """The succeeded job whose weights lie in the bucket under this token, or None."""
        self.steps.reach("before a look into the bucket")
        number = self.account.looks
        self.account = replace(self.account, looks=number + 1)
        looks = self.conditions.looks
        if token in self.denied or (number < len(looks) and not looks[number]):
            raise ProviderUnavailable("the weights cannot be looked for")
        left = self._left_under(weights_key(token, destination))
        self.steps.reach("after a look into the bucket")
        if left is None:
            return None
        return TrainingJob(
            id=f"{left.id}{_SUFFIX}" if left.leaves is Leaves.NAMED else "",
            state=JobState.SUCCEEDED,
            provider_status="",
            mark=token,
            output_weights=f"{BUCKET}/{weights_key(token, destination)}",
            completed_at=left.ends_at,
        )

    def shown_from(self, training: PaidTraining) -> datetime | None:
        return training.ends_at if self.was_worth_it(training) else None

    def was_worth_it(self, training: PaidTraining) -> bool:
        return training.leaves is not Leaves.NOTHING

    @staticmethod
    def new_id(number: int) -> str:
        return str(uuid.UUID(int=number + 1))

    def _next_read(self) -> Answer:
        number = self.account.reads
        self.account = replace(self.account, reads=number + 1)
        planned = self.conditions.reads
        return planned[number] if number < len(planned) else Answer.GIVEN

    def _remembered(self) -> list[PaidTraining]:
        """The jobs that RunPod does not deny to know."""
        now, vanishes = self.clock(), self.conditions.vanishes
        return [
            one
            for one in self._known()
            if now >= one.takes_effect + self.lag
            and now < one.ends_at + KEPT
            and (vanishes is None or now < one.takes_effect + timedelta(seconds=vanishes))
        ]

    def _left_under(self, key: str) -> PaidTraining | None:
        """The last job that wrote this object."""
        now = self.clock()
        left = [
            one
            for one in self.account.trainings
            if weights_key(one.token, one.destination) == key
            and self.was_worth_it(one)
            and now >= one.ends_at
        ]
        return max(left, key=lambda one: one.ends_at, default=None)

    def _delivered_from(self, url: str) -> bytes:
        left = self._left_under(url.removeprefix(f"{BUCKET}/"))
        if left is None:
            raise NotFound("the weights are not there")
        return lora_file(left.id)

    def _job(self, training: PaidTraining) -> TrainingJob:
        state = training.state(self.clock())
        told = self.conditions.tells_token and state is not JobState.QUEUED
        return TrainingJob(
            id=f"{training.id}{_SUFFIX}",
            state=state,
            provider_status=_WORDS[state],
            mark=training.token if told else None,
            error="timed out after 600 s" if state is JobState.FAILED else None,
            logs="",
        )
