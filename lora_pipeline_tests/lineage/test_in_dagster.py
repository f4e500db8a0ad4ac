"""What Dagster shows of where a version comes from."""

from __future__ import annotations

import re

from lora_pipeline.database.tables import OutboxEvent
from lora_pipeline.defs.events import event_metadata
from lora_pipeline.lineage.graph import Kind
from lora_pipeline.trainings.outbox import AssetEvent
from lora_pipeline_tests.lineage.conftest import KEY, Story

URL = "https://loras.example"


def trained(story: Story, **changed: object) -> AssetEvent:
    with story.connections.database.read() as session:
        row = (
            session.query(OutboxEvent)
            .filter_by(asset_key="trained_lora", partition=KEY)
            .order_by(OutboxEvent.id)
            .first()
        )
        assert row is not None
        facts = {**row.payload["facts"], **changed}
        return AssetEvent(row.event_id, row.asset_key, row.partition, row.payload["kind"], facts)


def test_a_version_tells_its_lineage_in_one_line_and_links_the_picture(story: Story) -> None:
    run = story.run(1)
    told = str(event_metadata(trained(story), URL)["lineage"].value)
    (image_set,) = story.trace(f"run:{run.id}").lineage.of_kind(Kind.SET)
    for part in (
        f"image set {run.image_set_id} (`{image_set.facts['digest'][:12]}`)",
        f"ZIP `{str(run.zip_sha256)[:12]}`",
        f"replicate `{run.training_id}`",
        "**V1**",
    ):
        assert part in told
    linked = re.findall(rf"{URL}/api/lineage/(\S+)/picture", told)
    assert story.versions(linked[0]) == [f"{KEY} V1"]
    assert len(told) < 1000, "longer texts are collapsed"


def test_a_version_of_a_provider_that_keeps_none_is_told_too(story: Story) -> None:
    metadata = event_metadata(trained(story, provider_version=None, provider="runpod"), URL)
    assert "lineage" in metadata
    assert "provider version" not in metadata
