"""Every setting, typed, from the environment, with its meaning. Nothing else reads the environment.

The providers' and databases' own names stand as they are known (`DATABASE_URL`, `REPLICATE_API_TOKEN`,
`REPLICATE_BASE_URL`, `AWS_…`); ours begin with `LORA_`.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from datetime import timedelta
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ProviderName = Literal["replicate", "runpod"]
REPLICATE: ProviderName = "replicate"
RUNPOD: ProviderName = "runpod"
PROVIDERS: tuple[ProviderName, ...] = (REPLICATE, RUNPOD)

LOOPBACK = frozenset({"127.0.0.1", "localhost"})

REPLICATE_API = "https://api.replicate.com"
RUNPOD_API = "https://api.runpod.ai"
# ostris/flux-dev-lora-trainer as of 2024-12: the version that the documented parameters were read from.
FLUX_TRAINER = "ostris/flux-dev-lora-trainer:e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497"


def _seconds(value: object) -> object:
    return timedelta(seconds=float(value)) if isinstance(value, str | int | float) else value


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
"""A duration, written in the environment as a number of seconds."""


def _web_address(url: str) -> str:
    if not re.match(r"https?://[^/]", url):
        raise ValueError("expected an address that starts with https:// or http://")
    return url


class SettingsError(Exception):
    """A setting is missing or makes no sense; the message says which, and what to do."""


class RunningStack(BaseModel):
    """Where the stack that `lora-pipeline up` started can be reached, as it wrote into its home."""

    pid: int
    dagster_url: str
    api_url: str
    simulator_url: str | None = None


def _env(name: str) -> AliasChoices:
    return AliasChoices(name, name.lower())


class Settings(BaseSettings):
    """All settings. `Settings()` reads the environment; tests pass values by their field names."""

    # What cannot be read may be a secret all the same, and Dagster shows why definitions did not load.
    model_config = SettingsConfigDict(
        env_prefix="LORA_", extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    home: Path = Field(default=Path(".lora"))
    """The embedded database, objects, inbox and Dagster's storage live here."""

    database_url: str | None = Field(default=None, validation_alias=_env("DATABASE_URL"))
    """`postgresql://…` or `sqlite:///…`; a SQLite file in the home where unset."""

    object_store: str | None = None
    """`s3://bucket/prefix` or a folder; `objects/` in the home where unset. `AWS_…` settings apply to S3."""

    inbox: str | None = None
    """Where new photographs arrive, one folder a model: a folder or `s3://bucket/prefix`.
    `inbox/` in the home where unset."""

    inventory: str = ""
    """Where LoRA files are listed: `s3://bucket/prefix`, several separated by commas. Where unset, what our own
    store has under `loras/` and `trained/`, if that is a bucket."""
    prefix_renames: str = ""
    """Folders of buckets that were renamed, in the order in which they were: `bucket/old=new`, several separated
    by commas. Addresses under the old name mean the new one."""

    sselfie_url: SecretStr | None = None
    """The selfie product's database (`postgresql://…`), for the Dagster job `import_legacy`; it is only read."""

    replicate_api_token: SecretStr | None = Field(default=None, validation_alias=_env("REPLICATE_API_TOKEN"))
    replicate_base_url: str = Field(default=REPLICATE_API, validation_alias=_env("REPLICATE_BASE_URL"))
    replicate_webhook_secret: SecretStr | None = None
    """What Replicate's webhooks are signed with (`whsec_…`); asked of Replicate if unset."""
    replicate_owner: str | None = None
    """The Replicate account or organisation that owns the destination models; the token's own if unset."""

    trainer: str = FLUX_TRAINER
    """The pinned trainer, `owner/name:64hex`."""

    runpod_api_key: SecretStr | None = Field(default=None, validation_alias=_env("RUNPOD_API_KEY"))
    runpod_base_url: str = RUNPOD_API
    runpod_endpoint: str | None = None
    """The id of the RunPod serverless endpoint whose worker trains."""
    runpod_execution_timeout: Seconds = timedelta(hours=3)
    """RunPod ends a job after this. Its own default is ten minutes, which no training fits into."""

    provider: ProviderName = "replicate"
    """Where models are trained: `replicate` or `runpod`."""
    style_provider: ProviderName | None = None
    """Where models of the type `style` are trained, if elsewhere."""

    observe: bool = False
    """Run beside another system: import, follow, compare and report everything, and submit, serve and delete
    nothing."""
    auto_submit: bool = False
    """Let sensors start paid trainings. The simulator needs no permission."""
    daily_training_cap: int = Field(default=50, ge=0)
    """At most this many trainings are started in a day (UTC); more are held until tomorrow."""
    daily_cost_cap: float = Field(default=200.0, ge=0)
    """At most this many estimated US dollars are started in a day (UTC)."""
    auto_resubmit_after: Seconds | None = None
    """Opt in: send an unknown submission again after this long. Unset, a person decides: no provider
    promises how late a request may still land, so sending again can pay twice."""

    reconcile_grace: Seconds = timedelta(minutes=15)
    """How long a submission of unknown outcome is looked for before it is held for a person."""
    lease: Seconds = timedelta(minutes=5)
    """How long a batch keeps its rows to itself; a killed batch is taken up again after this."""
    poll_interval: Seconds = timedelta(seconds=120)
    """Between two ticks of the training status sensor."""
    tick_budget: Seconds = timedelta(seconds=40)
    """A tick stops by itself after this: Dagster cuts an evaluation at 60 s and it would overlap the next."""
    provider_timeout: Seconds = timedelta(seconds=10)
    """One request to a provider, at most."""

    image_profile: Literal["flux", "demo"] = "flux"
    """Which thresholds the image checks use."""
    ready_images: int = Field(default=10, ge=5)
    """A set with this many usable images becomes ready by itself once it has been quiet."""
    ready_quiet: Seconds = timedelta(minutes=10)
    """How long no image may have arrived before a set becomes ready by itself."""

    keep_photographs: Seconds = Field(default=timedelta(days=365), ge=timedelta(days=1))
    """Photographs of people are deleted so long after the last training of a model that uses them ended. A retrain
    needs them: until then without asking their owner again, afterwards with another upload."""

    weights_cap_bytes: int = 2_000_000_000
    """A weights archive or file above this is refused (a rank-16 Flux LoRA is about 170 MB)."""

    deployment_id: str | None = Field(default=None, max_length=128)
    """Which deployment this is (a release, a commit): the first `resolve` of a model in each one checks whether
    its version is outdated. This program's own version if unset."""

    api_host: str = "127.0.0.1"
    api_port: int = 8010
    public_url: str | None = None
    """How browsers and providers reach the HTTP server: for the links in Dagster's metadata and, where it is
    https, for webhooks, which make a training's end known before the next poll."""
    api_open: bool = False
    """Answer without a key, as an administrator: for trying things out on this machine. Loopback only."""
    api_rate: float = Field(default=50.0, gt=0)
    """Requests a second that one key may make over time; four seconds' worth may come at once."""
    upload_cap_bytes: int = Field(default=300_000_000, gt=0)
    """One upload, or all images of one start together, at most."""
    image_hosts: str = ""
    """Hosts, separated by commas, from which images may be fetched although they lie in a private network:
    `blobs.internal, 10.0.0.5:9000`. Everything else must have a public address."""

    callback_url: str | None = None
    """Where the application hears of completed and failed trainings and of changed versions; nowhere if unset."""
    callback_secret: SecretStr | None = None
    """What those callbacks are signed with: `whsec_` and base64 of 24 to 64 random bytes."""
    alert_url: SecretStr | None = None
    """Where whoever is on call is told of failed runs and of standing checks that begin to fail: an incoming webhook
    that takes `{"text": …}` (Slack, Mattermost, Google Chat, Discord's `…/slack`). A secret."""

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("replicate_base_url")
    @classmethod
    def _base_url_without_v1(cls, url: str) -> str:
        # The official client adds /v1 itself; a base that ends in it asks for /v1/v1.
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("runpod_base_url")
    @classmethod
    def _base_url_without_v2(cls, url: str) -> str:
        return url.rstrip("/").removesuffix("/v2")

    @field_validator("replicate_webhook_secret", "callback_secret")
    @classmethod
    def _signing_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is None or not secret.get_secret_value():
            return None
        prefix, _, key = secret.get_secret_value().partition("_")
        try:
            known = prefix == "whsec" and base64.b64decode(key, validate=True)
        except ValueError:
            known = False
        if not known:
            raise ValueError("expected whsec_ and base64, as GET /v1/webhooks/default/secret answers")
        return secret

    @field_validator("callback_url")
    @classmethod
    def _callback_address(cls, url: str | None) -> str | None:
        return _web_address(url) if url else None

    @field_validator("alert_url")
    @classmethod
    def _alert_address(cls, url: SecretStr | None) -> SecretStr | None:
        return SecretStr(_web_address(url.get_secret_value())) if url and url.get_secret_value() else None

    @cached_property
    def running_stack(self) -> RunningStack | None:
        """The stack started on this home, as far as its file says (it may have died since)."""
        try:
            return RunningStack.model_validate(json.loads((self.home / "stack.json").read_text()))
        except (OSError, ValueError):
            return None

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'lora.sqlite3'}"

    @property
    def resolved_object_store(self) -> str:
        return self.object_store or str(self.home / "objects")

    @property
    def resolved_inbox(self) -> str:
        return self.inbox or str(self.home / "inbox")

    @cached_property
    def resolved_deployment_id(self) -> str:
        return self.deployment_id or f"lora-pipeline {metadata.version('lora-pipeline')}"

    @property
    def resolved_public_url(self) -> str:
        if self.public_url:
            return self.public_url.rstrip("/")
        if self.running_stack:
            return self.running_stack.api_url
        return f"http://{self.api_host}:{self.api_port}"

    @property
    def only_this_machine(self) -> bool:
        """Whether the HTTP server can be reached from this machine alone: bound to loopback, no proxy announced."""
        public = urlsplit(self.resolved_public_url).hostname or ""
        return self.api_host in LOOPBACK and public in LOOPBACK

    def provider_for(self, model_type: str) -> ProviderName:
        """Where a model of this type is trained."""
        return self.style_provider or self.provider if model_type == "style" else self.provider

    @property
    def providers_in_use(self) -> frozenset[ProviderName]:
        """Every provider that new trainings may go to."""
        return frozenset({self.provider, self.style_provider or self.provider})

    @property
    def runpod_trainer(self) -> str:
        """What a RunPod training is trained by, as it is stored: the endpoint and its worker."""
        return f"runpod/{self.runpod_connection()[1]}"

    @property
    def runpod_webhook_secret(self) -> str | None:
        """The unguessable part of the address that RunPod's unsigned webhooks come to: made from the API key."""
        try:
            _, endpoint, api_key = self.runpod_connection()
        except SettingsError:
            return None
        return hmac.digest(api_key.encode(), f"webhook of {endpoint}".encode(), "sha256").hex()

    @property
    def webhook_urls(self) -> dict[str, str]:
        """Provider → where it sends webhooks; none where it could not reach us: it needs https, polling is enough."""
        urls: dict[str, str] = {}
        if self.public_url is not None and self.public_url.startswith("https://"):
            base = f"{self.public_url.rstrip('/')}/webhooks"
            urls[REPLICATE] = f"{base}/replicate"
            if self.runpod_webhook_secret:
                urls[RUNPOD] = f"{base}/runpod/{self.runpod_webhook_secret}"
        return urls

    def runpod_connection(self) -> tuple[str, str, str]:
        """(base URL, endpoint, API key) of RunPod, or of the running stack's simulator where no key is set.

        Raises SettingsError where neither is there.
        """
        key = self.runpod_api_key.get_secret_value() if self.runpod_api_key else ""
        if key and self.runpod_endpoint:
            return self.runpod_base_url, self.runpod_endpoint, key
        if key or self.runpod_endpoint:
            missing = "LORA_RUNPOD_ENDPOINT, the id of your serverless endpoint" if key else "RUNPOD_API_KEY"
            raise SettingsError(f"RunPod needs two settings, and one is missing: set {missing}")
        if self.running_stack and self.running_stack.simulator_url:
            return self.running_stack.simulator_url, "simulated", "rpa_simulated"
        raise SettingsError(
            "RUNPOD_API_KEY environment variable is not set. Create a key at "
            "https://www.runpod.io/console/user/settings, and set LORA_RUNPOD_ENDPOINT beside it"
        )

    def replicate_connection(self) -> tuple[str, str]:
        """(base URL, token) of Replicate, or of the running stack's simulator where no token is set.

        Raises SettingsError where neither is there.
        """
        if self.replicate_api_token and self.replicate_api_token.get_secret_value():
            return self.replicate_base_url, self.replicate_api_token.get_secret_value()
        if self.running_stack and self.running_stack.simulator_url:
            return self.running_stack.simulator_url, "r8_simulated"
        raise SettingsError(
            "REPLICATE_API_TOKEN environment variable is not set. Create a token at "
            "https://replicate.com/account/api-tokens and export it, or start the simulated provider "
            "with: lora-pipeline up"
        )
