"""Asset events from the outbox, as Dagster writes them."""

from __future__ import annotations

import dagster as dg

from lora_pipeline.defs.metadata import (
    Metadata,
    image_set_metadata,
    lora_metadata,
    registry_metadata,
    training_metadata,
    zip_metadata,
)
from lora_pipeline.trainings.outbox import AssetEvent

DATA_VERSION = "dagster/data_version"


def as_dagster_event(event: AssetEvent, public_url: str) -> dg.AssetMaterialization | dg.AssetObservation:
    """The event with its metadata. Materialisations carry the content hash as their data version."""
    metadata = {**event_metadata(event, public_url), "event id": dg.MetadataValue.text(event.event_id)}
    if event.kind == "observation":
        return dg.AssetObservation(asset_key=event.asset_key, partition=event.partition, metadata=metadata)
    version = data_version(event)
    return dg.AssetMaterialization(
        asset_key=event.asset_key,
        partition=event.partition,
        metadata=metadata,
        tags={DATA_VERSION: version} if version else None,
    )


def event_metadata(event: AssetEvent, public_url: str) -> Metadata:
    """What to show with an event of this asset."""
    match event.asset_key:
        case "uploaded_image_set":
            return image_set_metadata(event.facts, public_url)
        case "training_zip":
            return zip_metadata(event.facts)
        case "trained_lora":
            return lora_metadata(event.facts, public_url)
        case "version_registry":
            return registry_metadata(event.facts)
        case _:
            return training_metadata(event.facts)


def data_version(event: AssetEvent) -> str | None:
    """The content hash of what was materialised."""
    facts = event.facts
    match event.asset_key:
        case "uploaded_image_set":
            value = facts["digest"]
        case "training_zip":
            value = facts["zip_sha256"]
        case "trained_lora":
            value = facts["content_key"]
        case "version_registry":
            value = None
        case _:
            value = facts["training_id"]
    return str(value) if value else None


def materialise_result(event: AssetEvent, public_url: str) -> dg.MaterializeResult[None]:
    """The same event, as the result of the asset's own function."""
    version = data_version(event)
    return dg.MaterializeResult(
        metadata=event_metadata(event, public_url),
        data_version=dg.DataVersion(version) if version else None,
    )
