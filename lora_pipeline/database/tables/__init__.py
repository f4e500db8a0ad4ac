"""Every table of the project, by subject. Importing this module is what makes the metadata complete."""

from lora_pipeline.database.tables.access import ApiKey, IdempotencyKey
from lora_pipeline.database.tables.background_jobs import BackgroundJob
from lora_pipeline.database.tables.base import Base, UtcDateTime
from lora_pipeline.database.tables.bookkeeping import AuditEntry, Control, OutboxEvent, WebhookDelivery
from lora_pipeline.database.tables.callbacks import Callback
from lora_pipeline.database.tables.erasures import ErasedName, Erasure, ErasureStep
from lora_pipeline.database.tables.image_sets import Image, ImageSet, ImageSetMember
from lora_pipeline.database.tables.inventory import InventoryObject, InventoryPlace
from lora_pipeline.database.tables.people import SelfieUpload, User, UserModel
from lora_pipeline.database.tables.sightings import ProviderSighting
from lora_pipeline.database.tables.trainings import TrainingRun
from lora_pipeline.database.tables.versions import (
    Activation,
    Artifact,
    ArtifactLocation,
    LoraWeights,
    MergeJournal,
    MergePlan,
    ModelVersion,
    ResolveCheck,
    ReviewItem,
    VersionAlias,
    VersionRedirect,
)

__all__ = [
    "Activation",
    "ApiKey",
    "Artifact",
    "ArtifactLocation",
    "AuditEntry",
    "BackgroundJob",
    "Base",
    "Callback",
    "Control",
    "ErasedName",
    "Erasure",
    "ErasureStep",
    "IdempotencyKey",
    "Image",
    "ImageSet",
    "ImageSetMember",
    "InventoryObject",
    "InventoryPlace",
    "LoraWeights",
    "MergeJournal",
    "MergePlan",
    "ModelVersion",
    "OutboxEvent",
    "ProviderSighting",
    "ResolveCheck",
    "ReviewItem",
    "SelfieUpload",
    "TrainingRun",
    "User",
    "UserModel",
    "UtcDateTime",
    "VersionAlias",
    "VersionRedirect",
    "WebhookDelivery",
]
