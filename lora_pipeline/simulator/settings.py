"""Every setting of the simulator, with its unit, its default and why it exists.

Where the provider's behaviour is documented or recorded, there is no setting. Where it is only inferred or
reported, there is one, marked "inferred", so that a consumer can be tried against both answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field

from lora_pipeline.simulator.runpod_settings import RunPodSettings

SIMULATED_HEADER = "Lora-Pipeline-Simulator"
"""Header on every answer; a client that sees it knows that what it reads was not produced by a real provider."""
LIMITED = ("run", "status", "cancel")
"""The kinds of request that RunPod limits."""


class SimulatorSettings(RunPodSettings):
    """How the simulated providers behave. Frozen: a change at run time makes a new record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Path | None = None
    """Folder of the SQLite file and the uploaded files; None keeps everything in a temporary folder."""
    account: str = Field("acme", pattern=r"^[a-z0-9][a-z0-9-]*$")
    """User name of the one account; destinations must belong to it."""
    account_name: str = "Acme Corp, Inc. (simulated)"
    api_token: str | None = None
    """The only bearer token accepted; None accepts any that is not empty."""
    latency_ms: float = Field(0.0, ge=0)
    """Added to every answer of the provider's interface."""

    speed: float = Field(1.0, ge=0)
    """Seconds of a training's life in a second of real time; 0 stops it, so that only the control interface moves it."""
    queue_s: float = Field(8.0, ge=0)
    """Life seconds between creation and start ("starting")."""
    setup_s: float = Field(55.0, ge=0)
    """Life seconds before the first step: fetching the base model, captioning, caching."""
    seconds_per_step: float = Field(0.9, gt=0)
    """Life seconds a training step; measured on real trainings (0.64-1.14)."""
    upload_s: float = Field(20.0, ge=0)
    """Life seconds after the last step."""
    jitter: float = Field(0.12, ge=0, lt=1)
    """Each training's times differ from the figures above by up to this share."""
    log_lines: int = Field(200, ge=1)
    """Progress lines in a finished log; raise it for webhook bodies of several megabytes."""

    fetch_archives: bool = True
    """Whether the simulated trainer downloads `input_images` and looks into the ZIP."""
    minimum_images: int = Field(1, ge=0)
    """Fewer usable images than this fail the training."""
    archive_cap_bytes: int = Field(2 * 1024**3, gt=0)
    """A bigger ZIP is not downloaded to its end and fails the training."""

    lora_blocks: int = Field(2, ge=1)
    """Transformer blocks of each kind in the weights; 120 of width 3072 weigh 165 MB at rank 16, as real ones do."""
    lora_width: int = Field(256, ge=1)
    """Hidden size in the weights; Flux has 3072."""
    weights_lifetime_s: float | None = Field(None, gt=0)
    """Wall seconds after which a weights URL answers 404. Inferred: no rule is published, treat them as short-lived."""
    data_retention_s: float | None = Field(None, gt=0)
    """Wall seconds after the end when input, output and logs are removed. Inferred: predictions lose theirs in an hour."""

    list_lag_s: float = Field(0.0, ge=0)
    """Wall seconds until a new training appears in the list, though GET by id knows it. Inferred."""
    create_per_minute: int | None = Field(600, ge=1)
    """Creations a minute before 429; None never throttles."""
    others_per_minute: int | None = Field(3000, ge=1)
    """All other requests a minute before 429; None never throttles."""
    out_of_credit: bool = False
    """Creations answer 402."""
    file_cap_bytes: int = Field(100_000_000, gt=0)
    """An uploaded file that is bigger answers 413."""
    file_lifetime_s: float = Field(86_400.0, gt=0)
    """Wall seconds after which an uploaded file is gone."""
    deletion_s: float = Field(120.0, ge=0)
    """Life seconds until an accepted version deletion (202) is carried out."""
    refused_deletion_status: int = Field(400, ge=400, le=499)
    """Status of a deletion that is not permitted (public, not empty). Inferred."""
    model_hash_status: int = Field(422, ge=400, le=499)
    """Status where a version is spelled `model:hash`, without the owner. Inferred."""
    burn_deleted_names: bool = False
    """Whether the name of a deleted model stays taken: 409 on creation, 404 on GET. Inferred."""
    refuse_unknown_inputs: bool = False
    """Whether an input that the trainer's schema lacks answers 422; otherwise it is ignored. Inferred."""

    webhook_retry_s: tuple[float, ...] = (1.0, 3.0, 8.0, 16.0, 30.0)
    """Real seconds between the attempts to deliver a terminal event: about a minute in all."""
    webhook_throttle_s: float = Field(0.5, ge=0)
    """Real seconds between two `logs` events of one training."""
    webhook_timeout_s: float = Field(10.0, gt=0)
    """Real seconds a receiver has for its answer."""

    @classmethod
    def for_tests(cls, **changes: Any) -> Self:
        """Settings for tests: time stands still until the test moves it, and nothing is throttled."""
        limits = ("create_per_minute", "others_per_minute", *(f"runpod_{name}_limit" for name in LIMITED))
        quiet: dict[str, Any] = {"speed": 0.0, **dict.fromkeys(limits)}
        return cls(**(quiet | changes))

    def shown(self) -> dict[str, Any]:
        """Every setting but the secrets."""
        return self.model_dump(mode="json", exclude={"api_token", "runpod_api_key", "worker_aws"})

    def changed(self, changes: dict[str, Any]) -> Self:
        """The same settings with some of them replaced; raises pydantic's ValidationError on a bad one."""
        return type(self).model_validate(self.model_dump() | changes)
