"""The materialisation of `version_registry` that a change of what models serve is worth."""

from __future__ import annotations

from lora_pipeline.connections import Connections
from lora_pipeline.trainings.outbox import AssetEvent, owe
from lora_pipeline.versions.overview import registry_facts


def owe_registry(connections: Connections, cause: str) -> None:
    """Owe Dagster the registry as it is now. `cause` (short, no name of a person) makes the event's id."""
    now = connections.now()
    event = AssetEvent(
        event_id=f"registry:{cause}:{now:%Y%m%d%H%M%S%f}",
        asset_key="version_registry",
        partition=None,
        kind="materialisation",
        facts=registry_facts(connections.database),
    )
    with connections.database.begin() as session:
        owe(session, [event], now)
