"""What operations need from outside, made from the settings: one way for Dagster, HTTP and command line.

Everything connects at first use; making a `Connections` does no I/O.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from lora_pipeline.settings import Settings

if TYPE_CHECKING:
    from lora_pipeline.database.sessions import Database
    from lora_pipeline.objects.store import ObjectStore
    from lora_pipeline.providers.protocol import TrainingProvider
    from lora_pipeline.trainings.start_rules import StartRules
    from lora_pipeline.trainings.webhooks import SigningSecret


class Connections:
    """The database, the object store and the provider that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def database(self) -> Database:
        """The database, at the current schema (SchemaOutdated otherwise)."""
        from lora_pipeline.database.migrate import require_current
        from lora_pipeline.database.sessions import Database

        database = Database(self.settings.resolved_database_url)
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
    def provider(self) -> TrainingProvider:
        """Replicate, or the simulator (SettingsError where neither a token nor a simulator is there)."""
        from lora_pipeline.providers.replicate import ReplicateProvider

        base_url, token = self.settings.replicate_connection()
        return ReplicateProvider(base_url, token, timeout=self.settings.provider_timeout.total_seconds())

    @cached_property
    def replicate_webhook_secret(self) -> SigningSecret:
        """What Replicate's webhooks are signed with: the setting, or what the provider says when it is needed."""
        from lora_pipeline.trainings.webhooks import SigningSecret

        given = self.settings.replicate_webhook_secret
        return SigningSecret(self._ask_webhook_secret, given.get_secret_value() if given else None)

    def _ask_webhook_secret(self) -> str:
        from lora_pipeline.providers.replicate import ReplicateProvider

        assert isinstance(self.provider, ReplicateProvider)
        return self.provider.webhook_secret()

    @cached_property
    def start_rules(self) -> StartRules:
        """What the settings say about starting trainings, in the words of the operations."""
        from lora_pipeline.image_sets.profiles import PROFILES
        from lora_pipeline.trainings.costs import DailyCaps
        from lora_pipeline.trainings.start_rules import StartRules
        from lora_pipeline.trainings.submission import SubmissionRules

        settings = self.settings
        return StartRules(
            trainer=settings.trainer,
            owner=settings.replicate_owner,
            profile=PROFILES[settings.image_profile],
            submission=SubmissionRules(
                caps=DailyCaps(settings.daily_training_cap, settings.daily_cost_cap),
                lease=settings.lease,
                webhook=settings.replicate_webhook_url,
            ),
        )

    def now(self) -> datetime:
        return datetime.now(UTC)

    def may_submit_by_itself(self) -> bool:
        """The money guard for sensors: a simulated provider needs no permission, a real one LORA_AUTO_SUBMIT."""
        return self.settings.auto_submit or self.provider.simulated
