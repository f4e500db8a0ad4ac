"""What operations need from outside, made from the settings: one way for Dagster, HTTP and command line.

Everything connects at first use; making a `Connections` does no I/O.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from lora_pipeline.quiet_logs import keep_secrets_out_of_logs
from lora_pipeline.settings import RUNPOD, Settings, SettingsError

if TYPE_CHECKING:
    from lora_pipeline.database.sessions import Database
    from lora_pipeline.image_sets.profiles import ImageProfile
    from lora_pipeline.objects.store import ObjectStore
    from lora_pipeline.providers.protocol import TrainingProvider
    from lora_pipeline.trainings.start_rules import StartRules
    from lora_pipeline.trainings.webhooks import SigningSecret

# RunPod's own default for how long a job may exist, queue included; it kills even a running one after that.
_RUNPOD_TTL = timedelta(hours=24)


class Connections:
    """The database, the object store and the provider that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        keep_secrets_out_of_logs()

    @cached_property
    def database(self) -> Database:
        """The database, at the current schema (SchemaOutdated otherwise)."""
        from lora_pipeline.database.migrate import require_current
        from lora_pipeline.database.sessions import Database

        database = Database(self.settings.resolved_database_url, observing=self.settings.observe)
        require_current(database)
        return database

    @cached_property
    def store(self) -> ObjectStore:
        from lora_pipeline.objects.opening import open_store

        return open_store(self.settings.resolved_object_store)

    @cached_property
    def inbox(self) -> ObjectStore:
        """Where new photographs arrive."""
        from lora_pipeline.objects.opening import open_store

        return open_store(self.settings.resolved_inbox)

    @cached_property
    def replicate(self) -> TrainingProvider:
        """Replicate, or the simulator (SettingsError where neither a token nor a simulator is there)."""
        from lora_pipeline.providers.replicate import ReplicateProvider

        base_url, token = self.settings.replicate_connection()
        return ReplicateProvider(base_url, token, timeout=self.settings.provider_timeout.total_seconds())

    @cached_property
    def runpod(self) -> TrainingProvider:
        """RunPod, or the simulator (SettingsError where neither an endpoint with its key nor a simulator is there)."""
        from lora_pipeline.providers.runpod import RunPodProvider

        settings = self.settings
        base_url, endpoint, api_key = settings.runpod_connection()
        if not self.store.can_presign:
            raise SettingsError(
                f"RunPod reads datasets from a bucket and leaves its weights there, and the object store is "
                f"{self.store.root}. Set LORA_OBJECT_STORE=s3://BUCKET/PREFIX"
            )
        return RunPodProvider(
            base_url,
            endpoint,
            api_key,
            self.store,
            timeout=settings.provider_timeout.total_seconds(),
            execution_timeout=settings.runpod_execution_timeout,
            ttl=max(_RUNPOD_TTL, settings.runpod_execution_timeout * 2),
        )

    def provider_named(self, name: str) -> TrainingProvider:
        """The provider of that name, as `training_runs.provider` stores it. SettingsError where it is not set up."""
        return self.runpod if name == RUNPOD else self.replicate

    def provider_for(self, model_type: str) -> TrainingProvider:
        """Where a model of this type is trained, as the settings say."""
        return self.provider_named(self.settings.provider_for(model_type))

    @cached_property
    def replicate_webhook_secret(self) -> SigningSecret:
        """What Replicate's webhooks are signed with: the setting, or what the provider says when it is needed."""
        from lora_pipeline.trainings.webhooks import SigningSecret

        given = self.settings.replicate_webhook_secret
        return SigningSecret(self._ask_webhook_secret, given.get_secret_value() if given else None)

    def _ask_webhook_secret(self) -> str:
        from lora_pipeline.providers.replicate import ReplicateProvider

        assert isinstance(self.replicate, ReplicateProvider)
        return self.replicate.webhook_secret()

    @cached_property
    def image_profile(self) -> ImageProfile:
        """The thresholds of the image checks."""
        from lora_pipeline.image_sets.profiles import PROFILES

        return PROFILES[self.settings.image_profile]

    def start_rules(self, provider: str) -> StartRules:
        """What the settings say about starting trainings at this provider, in the words of the operations."""
        from lora_pipeline.trainings.costs import DailyCaps
        from lora_pipeline.trainings.start_rules import StartRules
        from lora_pipeline.trainings.submission import SubmissionRules

        settings = self.settings
        return StartRules(
            trainer=settings.runpod_trainer if provider == RUNPOD else settings.trainer,
            owner=settings.replicate_owner,
            submission=SubmissionRules(
                caps=DailyCaps(settings.daily_training_cap, settings.daily_cost_cap),
                lease=settings.lease,
                webhook=settings.webhook_urls.get(provider),
            ),
        )

    def now(self) -> datetime:
        return datetime.now(UTC)

    def may_submit_by_itself(self) -> bool:
        """The money guard for sensors: a simulated provider needs no permission, a real one LORA_AUTO_SUBMIT."""
        if self.settings.auto_submit:
            return True
        return all(self.provider_named(name).simulated for name in self.settings.providers_in_use)
