"""What the routes answer and take, as schemas: the words and spelling that applications know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
Text200 = Annotated[str, Field(min_length=1, max_length=200, pattern=_ONE_LINE)]
UserId = Annotated[str, Field(min_length=1, max_length=64, pattern=_ONE_LINE)]
Status = Literal["pending", "starting", "training", "completed", "failed", "canceled"]
ModelType = Literal["person", "object", "style"]


class Answer(BaseModel):
    """Written in camel case, as the applications' front ends read it."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        from_attributes=True,
        use_attribute_docstrings=True,
    )


class Request(Answer):
    """Taken as it is written, and nothing else: a misspelled field is told, not ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class FindingAnswer(Answer):
    code: str
    severity: str
    message: str
    remedy: str = ""


class UploadedImage(Answer):
    """One file that was sent."""

    name: str
    url: str | None
    """For `imageUrls`; null where the file was not kept."""
    preview_url: str | None = None
    """A picture to show; a signed link."""
    sha256: str | None
    verdict: Literal["included", "excluded", "failed", "waiting"]
    message: str
    findings: list[FindingAnswer]


class UploadAnswer(Answer):
    image_urls: list[str]
    """Of the images that may be trained on, in the order in which they came."""
    images: list[UploadedImage]
    """Every file, with its verdict."""


class StartRequest(Request):
    model_name: Text200
    model_type: ModelType = "person"
    gender: Annotated[str, Field(max_length=16, pattern=_ONE_LINE)] | None = None
    image_urls: Annotated[list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(max_length=1000)]
    user_id: UserId | None = None
    """For administrators: whose model it is."""


class StartAnswer(Answer):
    model_id: str
    training_id: str | None
    """The provider's; null where the training waits (see `message`) or is still being sent."""
    trigger_word: str
    status: Status
    message: str
    images: list[UploadedImage] = []


class ServedAnswer(Answer):
    version: str
    provider_version: str | None


class ModelDetails(Answer):
    model_id: str
    model_name: str
    model_type: str
    gender: str | None
    trigger_word: str
    served: ServedAnswer | None
    """What generation uses now; a retrain under way does not change it."""


class ProgressAnswer(Answer):
    status: Status
    progress: Annotated[int, Field(ge=0, le=100)]
    estimated: bool
    """True where the trainer has not said how far it is and the time that has passed stands in."""
    seconds_left: int | None
    training_id: str | None
    attempt: int | None
    error: str | None
    hold_reason: str | None
    started_at: datetime | None
    completed_at: datetime | None
    model: ModelDetails


class SyncRequest(Request):
    model_id: Text200 | None = None
    """The user's active model where it is left out."""


class SyncAnswer(Answer):
    """What a sync of one model found and did."""

    model_id: str
    update_needed: bool | None
    """null where the provider could not tell."""
    updated: bool
    outcome: str
    verdict: str
    current_version: str | None
    previous_version: str | None
    latest_version: str | None
    message: str
    advice: list[str]


class ResolveAnswer(Answer):
    """What to generate with."""

    model_id: str
    version: str | None
    provider_version: str | None
    prediction_version: str | None
    weights_url: str | None
    weights_expire_at: datetime | None
    weights_state: str
    trigger_word: str
    lora_scale: float
    pinned: bool
    simulated: bool
    stale: bool
    checked_at: datetime | None
    verdict: str | None
    problem: str | None


class VersionAnswer(Answer):
    version: str
    active: bool
    pinned: bool
    active_since: datetime | None
    weights: str
    sha256: str | None
    size: int | None
    trigger_word: str
    lora_scale: float
    images: int | None
    provider: str
    provider_version: str | None
    parameters: dict[str, Any]
    simulated: bool
    trained_at: datetime | None


class VersionsAnswer(Answer):
    model_id: str
    versions: list[VersionAnswer]


class ActivationAnswer(Answer):
    version: str
    provider_version: str | None
    active_from: datetime
    active_to: datetime | None
    actor: str
    reason: str
    pinned: bool
    rolled_back: bool


class HistoryAnswer(Answer):
    model_id: str
    at: str | None
    history: list[ActivationAnswer]


class ReasonRequest(Request):
    reason: Text200 = "asked for over HTTP"


class ActivateRequest(ReasonRequest):
    version: Text200


class RollbackRequest(ReasonRequest):
    only_from: Text200 | None = None
    """Do nothing unless this version is the one being served."""


class ChoiceAnswer(Answer):
    model_id: str
    version: str
    previous: str | None
    changed: bool
    pinned: bool
    explanation: str
    warnings: list[str]


class LinkAnswer(Answer):
    url: str
    expires_at: datetime


class RunRequest(Request):
    run: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """Its number; the model's newest training where it is left out."""


class CancelAnswer(Answer):
    model_id: str
    run: int
    outcome: str
    message: str


class RetryAnswer(Answer):
    model_id: str
    run: int
    training_id: str | None
    new_attempt: bool
    message: str


class TrainingAnswer(Answer):
    run: int
    attempt: int
    state: str
    status: Status
    progress: int
    progress_estimated: bool
    training_id: str | None
    provider: str
    simulated: bool
    trigger_word: str
    parameters: dict[str, Any]
    error: str | None
    hold_reason: str | None
    estimated_cost: float | None
    cost: float | None
    created_at: datetime
    submitted_at: datetime | None
    completed_at: datetime | None
    loss_curve_url: str | None
    """A picture; a signed link."""


class TrainingsAnswer(Answer):
    model_id: str
    trainings: list[TrainingAnswer]


class SetImage(Answer):
    name: str
    sha256: str
    preview_url: str | None
    """A picture to show; a signed link."""
    verdict: Literal["pending", "included", "excluded"]
    chosen_by_hand: bool
    width: int | None
    height: int | None
    caption: str | None
    findings: list[FindingAnswer]


class ImagesAnswer(Answer):
    model_id: str
    image_set: int | None
    state: Literal["none", "draft", "ready"]
    usable: int
    findings: list[FindingAnswer]
    contact_sheet_url: str | None
    """A picture; a signed link."""
    images: list[SetImage]


class ImageChange(Request):
    name: Annotated[str, Field(min_length=1, max_length=1000)]
    choice: Literal["include", "exclude", "checks"] | None = None
    """`checks` leaves it to the checks again."""
    caption: Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")] | None = None
    """An empty text takes the caption away."""


class ModelSummary(Answer):
    model_id: str
    model_name: str
    model_type: str
    trigger_word: str
    status: Status
    created_at: datetime


class ModelsAnswer(Answer):
    models: list[ModelSummary]


class HealthAnswer(Answer):
    status: str
