"""A retrain on a weaker set says so before it is paid."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lora_pipeline.cli.environment import connect
from lora_pipeline.cli.exits import Exit
from lora_pipeline.image_sets.drafts import set_choice
from lora_pipeline.image_sets.profiles import PROFILES
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.finishing import finalise_succeeded, follow_and_find_work
from lora_pipeline_tests.cli.conftest import Run
from lora_pipeline_tests.fixtures.photographs import drop_photographs


def test_a_retrain_on_far_fewer_images_is_warned_about_and_goes_on(
    run: Run, at_simulator: RunningSimulator, tmp_path: Path
) -> None:
    run("db", "upgrade")
    photographs = drop_photographs(tmp_path / "photos", 10)
    run("upload", "user-50c", str(tmp_path / "photos"))
    first = run("train", "user-50c", "--json")
    assert (first.code, first.json["warnings"]) == (Exit.FINE, []), first.err

    connections = connect()
    at_simulator.control("trainings/end")
    work = follow_and_find_work(connections)
    assert finalise_succeeded(connections, lease=work.lease, say=print).done == ("user-50c",)
    for photograph in photographs[:4]:
        set_choice(
            connections.database,
            "user-50c",
            photograph.name,
            choice="exclude",
            actor="maria",
            profile=PROFILES["demo"],
            now=datetime.now(UTC),
        )
    connections.database.close()

    again = run("train", "user-50c", "--json")
    assert again.code == Exit.FINE
    assert any("6 images, the previous version had 10" in warning for warning in again.json["warnings"])
    assert "Warning: user-50c: 6 images, the previous version had 10" in again.err
    assert at_simulator.paid()["count"] == 2
