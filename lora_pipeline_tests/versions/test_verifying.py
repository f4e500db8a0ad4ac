"""What a sync brought in becomes evidence afterwards: downloaded, checked, archived, or registered as missing."""

from __future__ import annotations

import pytest

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import Artifact, LoraWeights, ReviewItem
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.versions.drift import Verdict
from lora_pipeline.versions.pinning import Chooser, roll_back
from lora_pipeline.versions.sync import sync_model
from lora_pipeline.versions.verifying import unverified_count, verify_versions
from lora_pipeline_tests.versions.fleets import (
    add_served,
    audit,
    history,
    push_versions,
    row,
    train_at_provider,
    versions,
)

KEY = "user-50c"


def synced(connections: Connections, simulator: RunningSimulator) -> str:
    """user-50c serves what a sync brought in; the training that made it."""
    first, second = train_at_provider(simulator, KEY, times=2)
    add_served(connections.database, KEY, first["version"])
    sync_model(connections, KEY, actor="test")
    return second["training_id"]


def test_weights_are_verified_archived_and_served_from_our_store(
    connections: Connections, simulator: RunningSimulator
) -> None:
    synced(connections, simulator)
    assert unverified_count(connections) == 1
    report = verify_versions(connections)
    assert (report.done, report.failures) == ((KEY,), ())
    version = versions(connections, KEY)[-1]
    served = row(connections, KEY)
    assert version.weights_state == "verified"
    assert served.lora_weights_url == version.weights_url
    assert connections.store.key_of(str(served.lora_weights_url)) is not None
    assert served.replicate_version_id == version.provider_version
    with connections.database.read() as session:
        artifact, weights = session.query(Artifact).one(), session.query(LoraWeights).one()
    assert weights.checksum == artifact.file_sha256
    assert len(history(connections, KEY)) == 2, "the same version is served: no new activation"
    assert unverified_count(connections) == 0
    assert verify_versions(connections).done == ()
    assert sync_model(connections, KEY, actor="test").verdict is Verdict.UP_TO_DATE


@pytest.mark.parametrize("damage", ["not_finite", "missing", "truncated", "html"])
def test_what_is_no_lora_is_registered_as_missing_with_its_reason(
    on_sqlite: Connections, simulator: RunningSimulator, damage: str
) -> None:
    training = synced(on_sqlite, simulator)
    simulator.control(f"trainings/{training}/quirks", weights=damage)
    (failure,) = verify_versions(on_sqlite).failures
    assert "no usable weights" in failure.reason
    assert versions(on_sqlite, KEY)[-1].weights_state == "missing"
    assert row(on_sqlite, KEY).lora_weights_url is None
    with on_sqlite.database.read() as session:
        assert session.query(ReviewItem).one().kind == "weights_refused"
    (entry,) = audit(on_sqlite, "weights refused")
    assert "trained_model.tar" not in str(entry.details)
    assert verify_versions(on_sqlite).failures == ()


def test_trouble_at_the_provider_leaves_it_in_the_queue(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    synced(on_sqlite, simulator)
    simulator.fault("any", "answer", status=503, times=100)
    (failure,) = verify_versions(on_sqlite).failures
    assert failure.reason.startswith("waits")
    assert unverified_count(on_sqlite) == 1
    simulator.control("reset")


def test_a_version_that_is_no_longer_served_is_verified_and_stays_unserved(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    synced(on_sqlite, simulator)
    roll_back(on_sqlite.database, KEY, Chooser("a person", "squints", on_sqlite.now()))
    before = row(on_sqlite, KEY)
    assert verify_versions(on_sqlite).done == (KEY,)
    after = row(on_sqlite, KEY)
    assert after.replicate_version_id == before.replicate_version_id
    assert after.lora_weights_url == before.lora_weights_url


def test_a_version_without_a_known_training_is_not_in_the_queue(
    on_sqlite: Connections, simulator: RunningSimulator
) -> None:
    push_versions(simulator, KEY, "a" * 64)
    add_served(on_sqlite.database, KEY, None)
    sync_model(on_sqlite, KEY, actor="test")
    assert unverified_count(on_sqlite) == 0
