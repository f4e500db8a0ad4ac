"""What every provider of trainings must do, and the one classification of what can go wrong.

Records here are plain facts read off the wire; what they mean for a training run is decided by
`trainings.lifecycle`. An error's class says what may be done next, so no caller looks at status codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, BinaryIO, Protocol, runtime_checkable


class JobState(StrEnum):
    """A provider's job in words that fit every provider."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    """A status word that this program does not know: poll again, decide nothing."""


@dataclass(frozen=True)
class TrainingJob:
    """One training as the provider describes it now."""

    id: str
    state: JobState
    provider_status: str
    """The provider's own word, verbatim."""
    input_reference: str | None = field(default=None, repr=False)
    """The dataset address that was sent (for Replicate `input.input_images`): it carries our token.
    May be a presigned URL: never log or store it."""
    mark: str | None = None
    """Our token, where the provider gives it back outside the dataset's address."""
    trainer_version: str | None = None
    """The trainer's version that really ran; never the trained model's."""
    output_version: str | None = None
    """The trained version, verbatim as the provider spelled it."""
    output_weights: str | None = field(default=None, repr=False)
    """The provider's address of the weights, verbatim; whoever has it may download them."""
    error: str | None = None
    logs: str | None = field(default=None, repr=False)
    """None where the answer carried no logs (lists never do)."""
    predict_seconds: float | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True)
class TrainingPage:
    """One page of the account's trainings, newest first."""

    jobs: tuple[TrainingJob, ...]
    malformed: tuple[str, ...] = ()
    """What was wrong with items that could not be read; they cost nobody else their place."""


@dataclass(frozen=True)
class TrainingRequest:
    """Everything one creation request says."""

    trainer: str
    """`owner/name:64hex`."""
    destination: str
    """Where the version goes: the model `owner/name` at Replicate, the file's name without its ending at RunPod."""
    input: Mapping[str, Any] = field(repr=False)
    """The trainer's parameters and the dataset address (a bearer secret: kept out of repr)."""
    webhook: str | None = field(default=None, repr=False)
    """Where events go; its path may be what proves them."""
    token: str = ""
    """Our mark of this request, for providers that can be told it outside the dataset's address."""


@dataclass(frozen=True)
class ProviderVersion:
    """A version of a model in the provider's list."""

    id: str
    """64 lower-case hex digits."""
    created_at: datetime | None


@dataclass(frozen=True)
class UploadedFile:
    """A file kept by the provider for a day."""

    id: str
    url: str = field(repr=False)


class ProviderError(Exception):
    """Something went wrong at a provider; the subclass says what may be done next."""


class ProviderUnavailable(ProviderError):
    """Transient: it changed nothing, or asking again does no harm (a read, a cancel, a model); try again."""


class Throttled(ProviderUnavailable):
    """429: surely nothing was created. Send again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnknownOutcome(ProviderError):
    """The request may or may not have had its effect, and may bill: reconcile, never send it again blindly."""


class Unauthenticated(ProviderError):
    """401: the token is wrong; nothing will work until it is replaced."""


class InsufficientCredit(ProviderError):
    """402: the account is out of credit; nothing will start until it is paid for."""


class Refused(ProviderError):
    """Permanent: the provider understood and said no (422, 403, 413 …)."""


class NotFound(ProviderError):
    """404: no such training, model, version or file, or it is not ours."""


class DestinationMissing(NotFound):
    """404 at creation: the destination model does not exist yet; nothing was created."""


class NameBurned(Refused):
    """The destination's name is taken (409) but the model cannot be read (404): it never can be ours."""


class TrainingProvider(Protocol):
    """One provider of trainings. Every method is one conversation over HTTP and raises ProviderError."""

    @property
    def name(self) -> str:
        """`replicate` or `runpod`, as stored in `training_runs.provider`."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether a simulator answers. Asked of the server once, then remembered."""
        ...

    def owner(self) -> str:
        """The account's name: the owner of destinations where no setting names another."""
        ...

    def input_schema(self, trainer: str) -> dict[str, Any]:
        """The trainer's input as a JSON schema object (`properties`, `required`), cached per version."""
        ...

    def ensure_destination(self, destination: str, *, description: str) -> None:
        """Create the private destination model unless it exists. NameBurned where it never can be ours."""
        ...

    def upload_file(self, name: str, content: BinaryIO) -> UploadedFile:
        """Hand a dataset to the provider (at most 100 MB at Replicate); unknown outcomes only cost storage."""
        ...

    def create_training(self, request: TrainingRequest) -> TrainingJob:
        """Start a paid training: sent exactly once, never retried here."""
        ...

    def get_training(self, job_id: str) -> TrainingJob:
        """One training with its logs."""
        ...

    def list_trainings(self) -> Iterator[TrainingPage]:
        """The account's trainings, newest first, one request a page, fetched as the iterator advances."""
        ...

    def cancel_training(self, job_id: str) -> TrainingJob:
        """Ask for a cancel. It still bills until a terminal state is observed."""
        ...

    def list_versions(self, model: str) -> Iterator[ProviderVersion]:
        """Versions of `owner/name`, newest first, over all pages."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded dataset; one that is already gone is fine."""
        ...

    def download(self, url: str) -> Iterable[bytes]:
        """Stream an output file. The token goes only to the provider's own API host."""
        ...


@runtime_checkable
class LeavesWeightsInBucket(Protocol):
    """A provider that lists no trainings and keeps no versions: its worker leaves the weights in our bucket.

    The object under the run's token is then what tells whose job it was, and that it is done.
    """

    def find_training(self, token: str, destination: str) -> TrainingJob | None:
        """The succeeded job whose weights lie in the bucket under this token, or None.

        Its id is what the worker wrote beside the object, empty where it wrote none. Raises
        ProviderUnavailable where the bucket cannot be asked.
        """
        ...


@runtime_checkable
class KeepsVersions(Protocol):
    """A provider that keeps what was trained as versions of models, and deletes them when asked."""

    def has_version(self, version: str) -> bool:
        """Whether `owner/name:hash` is there."""
        ...

    def delete_version(self, version: str) -> None:
        """Ask for the deletion of `owner/name:hash`, which may take minutes. Raises Refused where it may not be."""
        ...

    def delete_model(self, model: str) -> None:
        """Delete `owner/name`, which must have no versions left; one that is already gone is fine."""
        ...
