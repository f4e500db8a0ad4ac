"""What is said before a retrain is paid that may be weaker than the version it would replace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lora_pipeline.database.sessions import Database
from lora_pipeline.database.tables import Image, ImageSet, ImageSetMember
from lora_pipeline.image_sets.findings import Finding, Severity
from lora_pipeline.objects import ObjectStore
from lora_pipeline.trainings.retraining_warnings import SetQuality, training_warnings, weaker_than_before
from lora_pipeline_tests.fixtures.pipeline import add_packed_run, run_row

BLURRED = Finding("blurred", Severity.WARN, "Blurred", 4, 20, "Replace it").to_dict()
FEWER = Finding("fewer_than_before", Severity.WARN, "6 images, the previous version had 20", 6, 20).to_dict()


@pytest.mark.parametrize(
    ("previous", "present", "warned"),
    [
        ((20, 20), (20, 13), True),
        ((20, 20), (20, 14), False),
        ((20, 0), (20, 0), False),
        ((20, 20), (13, 0), False),  # fewer images: said by the set's own check
        ((5, 1), (20, 20), False),
    ],
)
def test_as_many_images_of_which_fewer_are_good_are_a_weaker_set(
    previous: tuple[int, int], present: tuple[int, int], warned: bool
) -> None:
    assert (weaker_than_before(SetQuality(*previous), SetQuality(*present)) is not None) is warned


def test_a_set_is_held_against_the_one_of_the_last_finalised_training(
    database: Database, store: ObjectStore
) -> None:
    good = add_packed_run(database, store, state="finalised")
    failed = add_packed_run(database, store, state="failed")
    blurred = add_packed_run(database, store)
    for run_id, flaws in ((good, 0), (failed, 6), (blurred, 6)):
        fill(database, run_id, 6, flaws)
    assert warnings(database, good) == ()
    (warning,) = warnings(database, blurred)
    assert "0 of 6 images are without a warning, the previous version had 6 of 6" in warning


def test_the_sets_own_warnings_are_told_and_its_notes_are_not(database: Database, store: ObjectStore) -> None:
    run_id = add_packed_run(database, store)
    note = Finding("shared_names", Severity.NOTE, "several images share the name").to_dict()
    fill(database, run_id, 6, 0, findings=[note, FEWER])
    assert warnings(database, run_id) == ("6 images, the previous version had 20",)


def warnings(database: Database, run_id: int) -> tuple[str, ...]:
    run = run_row(database, run_id)
    assert run.image_set_id is not None
    with database.read() as session:
        return training_warnings(session, run.model_id, run.image_set_id)


def fill(database: Database, run_id: int, images: int, flaws: int, **fields: Any) -> None:
    """Give a run's image set that many included images, the first `flaws` of them blurred."""
    run, now = run_row(database, run_id), datetime.now(UTC)
    with database.begin() as session:
        image_set = session.get_one(ImageSet, run.image_set_id)
        for name, value in fields.items():
            setattr(image_set, name, value)
        for number in range(images):
            image = Image(
                user_id=run.user_id,
                sha256=f"{run_id:032}{number:032}",
                object_key=f"images/{run_id}/{number}",
                size=1,
                findings=[],
                created_at=now,
            )
            session.add(image)
            session.flush()
            session.add(
                ImageSetMember(
                    image_set_id=image_set.id,
                    image_id=image.id,
                    source_name=f"{number}.jpg",
                    verdict="included",
                    findings=[BLURRED] if number < flaws else [],
                    created_at=now,
                )
            )
