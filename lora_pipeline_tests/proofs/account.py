"""A provider inside the test process, with the faults of a real one and a clock that only the test moves.

Everywhere else the real client talks to the simulator over HTTP. Here thousands of schedules are run, each of them
some dozens of conversations: over HTTP that would take an hour. It implements the same protocol, and says at each
conversation that a step boundary has been reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, BinaryIO

from lora_pipeline.providers.protocol import (
    DestinationMissing,
    InsufficientCredit,
    JobState,
    NotFound,
    ProviderUnavailable,
    ProviderVersion,
    Refused,
    Throttled,
    TrainingJob,
    TrainingPage,
    TrainingRequest,
    Unauthenticated,
    UnknownOutcome,
    UploadedFile,
)
from lora_pipeline_tests.proofs.loras import weights_archive
from lora_pipeline_tests.proofs.steps import Steps

QUEUED = timedelta(seconds=15)
PAGE = 2
"""Items a page: small, so that a walk over few trainings has several pages."""
TRAINER_RETURNED = "e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497"


class Answer(StrEnum):
    """What becomes of one creation request."""

    GIVEN = "given"
    LOST = "lost"
    """The training starts, the answer never arrives."""
    NEVER = "never"
    """Neither the request nor an answer arrives."""
    LATE = "late"
    """The caller gives up, and the request takes effect afterwards."""
    THROTTLED = "throttled"
    REFUSED = "refused"
    BROKE = "broke"
    """402: out of credit."""
    LOCKED_OUT = "locked out"
    """401."""
    NO_MODEL = "no model"
    """404: somebody deleted the destination."""


class Delivery(StrEnum):
    """What one download of weights delivers."""

    WHOLE = "whole"
    CUT = "cut"
    PAGE = "page"
    """An HTML page with status 200."""
    GONE = "gone"


class Leaves(StrEnum):
    """What a job at RunPod leaves in the bucket, whatever its last status is."""

    NAMED = "named"
    """The weights, with the job's id beside them."""
    UNNAMED = "unnamed"
    """The weights, and nothing that says which job made them."""
    NOTHING = "nothing"


@dataclass(frozen=True)
class Conditions:
    """How this provider behaves. Sequences are used up item by item; their usual value follows."""

    provider: str = "replicate"
    """`runpod` lists nothing and forgets results: see `unlisted`."""
    answers: tuple[Answer, ...] = ()
    late: float = 100.0
    """Seconds after which a late request takes effect."""
    lag: float = 0.0
    """Seconds until a new training is listed (GET by id knows it at once)."""
    length: float = 600.0
    """Seconds that a training runs."""
    outcome: JobState = JobState.SUCCEEDED
    deliveries: tuple[Delivery, ...] = ()
    uploads: tuple[bool, ...] = ()
    """Whether an upload succeeds."""
    busy: int = 1
    """So many trainings of other people are always newer than ours: they fill the first pages."""
    history: int = 2
    """So many trainings of other people are older, an hour apart."""
    unreadable: int = 0
    """The first so many trainings cannot be read one by one."""
    pages_fail: int = 0
    """So many times the second page of the list cannot be read."""
    garbled: int = 0
    """On so many pages, what is ours cannot be read."""
    page_seconds: float = 0.0
    """How long one page takes."""
    output_after: float = 0.0
    """Seconds between the success and the moment when the answer names version and weights."""
    presigns: bool = True
    """Whether the object store signs URLs; otherwise datasets are uploaded to the provider."""
    webhooks: bool = False
    """Whether the provider tells each status, doubled; tests of webhooks that come at any moment need no setting."""
    leaves: Leaves = Leaves.NAMED
    vanishes: float | None = None
    """Seconds after its start from which RunPod denies knowing a job, whatever the job does."""
    tells_token: bool = True
    """Whether a job's status carries our token once the worker runs."""
    reads: tuple[Answer, ...] = ()
    """How RunPod answers questions about jobs: given, never, throttled or locked out."""
    looks: tuple[bool, ...] = ()
    """Whether the bucket can be asked."""


@dataclass(frozen=True)
class PaidTraining:
    """One training that somebody pays for."""

    id: str
    token: str
    reference: str
    destination: str
    takes_effect: datetime
    ends: JobState
    ends_at: datetime
    leaves: Leaves

    def goes_by(self, name: str | None) -> bool:
        """Whether `name` is this training's id; RunPod's may come with a suffix."""
        return name is not None and (name == self.id or name.startswith(f"{self.id}-"))

    def state(self, now: datetime) -> JobState:
        if now >= self.ends_at:
            return self.ends
        return JobState.RUNNING if now >= self.takes_effect + QUEUED else JobState.QUEUED


@dataclass(frozen=True)
class Account:
    """Everything the provider knows and has been asked: it outlives each of our processes."""

    trainings: tuple[PaidTraining, ...] = ()
    asked: int = 0
    delivered: int = 0
    uploaded: int = 0
    pages_failed: int = 0
    reads: int = 0
    looks: int = 0

    def of(self, mark: str) -> list[PaidTraining]:
        """The trainings paid for one of our marks."""
        return [training for training in self.trainings if mark in training.reference]


class FakeProvider:
    """See the module. `account` is replaced at each change, so that a copy of it is free."""

    name = "replicate"
    simulated = True

    def __init__(self, conditions: Conditions, clock: Callable[[], datetime], steps: Steps) -> None:
        self.conditions, self.steps, self.clock = conditions, steps, clock
        self.account = Account()
        self.pass_time: Callable[[float], None] = lambda _: None

    def owner(self) -> str:
        return "acme"

    def input_schema(self, trainer: str) -> dict[str, Any]:
        return {"properties": {}, "required": []}

    def ensure_destination(self, destination: str, *, description: str) -> None:
        self.steps.reach("before the destination is made")
        self.steps.done("the destination was made")

    def upload_file(self, name: str, content: BinaryIO) -> UploadedFile:
        self.steps.reach("before an upload")
        number = self.account.uploaded
        self.account = replace(self.account, uploaded=number + 1)
        if not _next(self.conditions.uploads, number, True):
            self.steps.reach("after a failed upload")
            raise ProviderUnavailable("the upload was cut")
        self.steps.done("an upload")
        return UploadedFile(f"file{number}x", f"https://files.invalid/v1/files/file{number}x")

    def create_training(self, request: TrainingRequest) -> TrainingJob:
        self.steps.reach("before the creation")
        number = self.account.asked
        answer = _next(self.conditions.answers, number, Answer.GIVEN)
        self.account = replace(self.account, asked=number + 1)
        if answer in _NOTHING_STARTED:
            self.steps.done("the creation was turned down")
            raise _NOTHING_STARTED[answer]
        training = self.start(request, late=answer is Answer.LATE)
        self.steps.done("the creation")
        if answer in (Answer.LOST, Answer.LATE):
            raise UnknownOutcome("no answer arrived")
        return self._job(training)

    def start(self, request: TrainingRequest, *, late: bool = False) -> PaidTraining:
        begins = self.clock() + timedelta(seconds=self.conditions.late if late else 0.0)
        training = PaidTraining(
            id=self.new_id(len(self.account.trainings)),
            token=request.token,
            reference=str(request.input["input_images"]),
            destination=request.destination,
            takes_effect=begins,
            ends=self.conditions.outcome,
            ends_at=begins + QUEUED + timedelta(seconds=self.conditions.length),
            leaves=self.conditions.leaves,
        )
        self.account = replace(self.account, trainings=(*self.account.trainings, training))
        return training

    @staticmethod
    def new_id(number: int) -> str:
        return f"job{number}"

    def get_training(self, job_id: str) -> TrainingJob:
        self.steps.reach("before a read")
        found = [self._job(one) for one in self._known() if one.id == job_id]
        self.steps.reach("after a read")
        if job_id in {one.id for one in self.account.trainings[: self.conditions.unreadable]}:
            raise ProviderUnavailable(f"training {job_id} makes no sense")
        if not found:
            raise NotFound(f"no training {job_id}")
        return replace(found[0], logs="")

    def list_trainings(self) -> Iterator[TrainingPage]:
        now = self.clock()
        listed = [_others_training(number, now) for number in range(self.conditions.busy)]
        listed += [self._job(one) for one in self.listed(now)]
        older = range(1, 1 + self.conditions.history)
        listed += [_others_training(-number, now - timedelta(hours=number)) for number in older]
        listed.sort(key=lambda job: job.created_at or now, reverse=True)
        for start in range(0, len(listed), PAGE):
            self.steps.reach("before a page")
            self.pass_time(self.conditions.page_seconds)
            if start and self.account.pages_failed < self.conditions.pages_fail:
                self.account = replace(self.account, pages_failed=self.account.pages_failed + 1)
                raise ProviderUnavailable("the page could not be read")
            self.steps.reach("after a page")
            yield self._page(listed[start : start + PAGE])

    def _page(self, jobs: list[TrainingJob]) -> TrainingPage:
        if self.account.pages_failed >= self.conditions.pages_fail + self.conditions.garbled:
            return TrainingPage(tuple(jobs))
        self.account = replace(self.account, pages_failed=self.account.pages_failed + 1)
        others = tuple(job for job in jobs if job.id.startswith("other"))
        return TrainingPage(others, malformed=("an item without an id",) * (len(jobs) - len(others)))

    def listed(self, now: datetime) -> list[PaidTraining]:
        """What the list shows at a moment."""
        return [one for one in self._known() if now >= one.takes_effect + self.lag]

    def shown_from(self, training: PaidTraining) -> datetime | None:
        """From when on a training can be found by its token alone; None where it never can."""
        return training.takes_effect + self.lag

    def was_worth_it(self, training: PaidTraining) -> bool:
        """Whether there are weights at its end."""
        return training.ends is JobState.SUCCEEDED

    def known(self) -> list[TrainingJob]:
        """What the provider would say now of each training that it has begun."""
        return [self._job(one) for one in self._known()]

    @property
    def lag(self) -> timedelta:
        return timedelta(seconds=self.conditions.lag)

    def end(self, job_id: str, state: JobState) -> None:
        """End a training now, unless it has ended."""
        now = self.clock()
        self.account = replace(
            self.account,
            trainings=tuple(
                replace(one, ends=state, ends_at=now, leaves=Leaves.NOTHING)
                if one.id == job_id and now < one.ends_at
                else one
                for one in self.account.trainings
            ),
        )

    def cancel_training(self, job_id: str) -> TrainingJob:
        self.end(job_id, JobState.CANCELED)
        return self.get_training(job_id)

    def list_versions(self, model: str) -> Iterator[ProviderVersion]:
        yield from ()

    def delete_file(self, file_id: str) -> None:
        self.steps.reach("before a file is deleted")

    def download(self, url: str) -> Iterator[bytes]:
        self.steps.reach("before a download")
        number = self.account.delivered
        self.account = replace(self.account, delivered=number + 1)
        delivery = _next(self.conditions.deliveries, number, Delivery.WHOLE)
        whole = self._delivered_from(url)
        if delivery is Delivery.GONE:
            raise NotFound("no such file")
        if delivery is Delivery.PAGE:
            yield b"<!doctype html><title>502 Bad Gateway</title>".ljust(600)
            return
        yield whole[: len(whole) // 3] if delivery is Delivery.CUT else whole
        self.steps.reach("after a download")

    def _delivered_from(self, url: str) -> bytes:
        return weights_archive(url.rsplit("/", 2)[-2])

    def _known(self) -> list[PaidTraining]:
        now = self.clock()
        return [one for one in self.account.trainings if now >= one.takes_effect]

    def _job(self, training: PaidTraining) -> TrainingJob:
        now = self.clock()
        state = training.state(now)
        ended = state not in (JobState.QUEUED, JobState.RUNNING)
        named = state is JobState.SUCCEEDED and now >= training.ends_at + timedelta(
            seconds=self.conditions.output_after
        )
        version = hashlib.sha256(training.id.encode()).hexdigest()
        return TrainingJob(
            id=training.id,
            state=state,
            provider_status=state.value,
            input_reference=training.reference,
            trainer_version=TRAINER_RETURNED,
            output_version=f"{training.destination}:{version}" if named else None,
            output_weights=f"https://delivery.invalid/{training.id}/trained_model.tar" if named else None,
            error="CUDA out of memory" if state is JobState.FAILED else None,
            created_at=training.takes_effect,
            completed_at=training.ends_at if ended else None,
        )


_NOTHING_STARTED = {
    Answer.NEVER: UnknownOutcome("no answer arrived"),
    Answer.THROTTLED: Throttled("too many requests", 10.0),
    Answer.REFUSED: Refused("no such trainer"),
    Answer.BROKE: InsufficientCredit("insufficient credit"),
    Answer.LOCKED_OUT: Unauthenticated("the token is wrong"),
    Answer.NO_MODEL: DestinationMissing("no such destination"),
}


def _next(planned: tuple[Any, ...], number: int, usual: Any) -> Any:
    return planned[number] if number < len(planned) else usual


def _others_training(number: int, now: datetime) -> TrainingJob:
    """Trainings that somebody else started in the same account: they fill pages."""
    return TrainingJob(
        id=f"other{number}",
        state=JobState.RUNNING,
        provider_status="processing",
        input_reference=f"https://elsewhere.invalid/{number}.zip",
        created_at=now,
    )
