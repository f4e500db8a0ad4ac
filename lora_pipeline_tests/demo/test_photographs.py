"""The demo's photographs: the same bytes every time, honest sizes, and the defects that they are meant to have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline.demo.inbox import drop_photographs
from lora_pipeline.demo.photographs import photographs, source_file
from lora_pipeline.demo.settings import demo_environment
from lora_pipeline.demo.shots import DEMO_MODELS, PROBLEM_MODEL, Defect, DemoModel, Shot
from lora_pipeline.image_sets.models import parse_description
from lora_pipeline.image_sets.profiles import PROFILES

every_model = pytest.mark.parametrize("model", DEMO_MODELS, ids=lambda model: model.key)


@every_model
def test_the_same_bytes_come_every_time(model: DemoModel) -> None:
    first = photographs(model)
    assert first == photographs(model)
    assert len(set(first.values())) == len(first) - sum(s.copy_of is not None for s in model.shots.values())


@every_model
def test_no_crop_leaves_its_source_and_none_is_enlarged(model: DemoModel) -> None:
    with Image.open(source_file(model.source)) as source:
        width, height = source.size
    for shot in model.shots.values():
        left, top, right, bottom = shot.crop
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert shot.width is None or shot.width <= right - left


def _too_small(shot: Shot) -> bool:
    left, top, right, bottom = shot.crop
    scale = 1.0 if shot.width is None else shot.width / (right - left)
    return min(right - left, bottom - top) * scale < PROFILES["demo"].min_short_side


@every_model
def test_each_set_has_eight_images_that_the_demo_s_profile_takes(model: DemoModel) -> None:
    good = [
        shot
        for shot in model.shots.values()
        if not _too_small(shot) and shot.copy_of is None and shot.defect is not Defect.CUT_OFF
    ]
    assert len(good) == 8


def test_the_problem_set_has_one_of_each_defect() -> None:
    files = photographs(PROBLEM_MODEL)
    shots = PROBLEM_MODEL.shots
    sideways = [name for name, shot in shots.items() if shot.defect is Defect.SIDEWAYS]
    cut_off = [name for name, shot in shots.items() if shot.defect is Defect.CUT_OFF]

    assert [len(sideways), len(cut_off)] == [1, 1]
    assert sum(_too_small(shot) for shot in shots.values()) == 1
    assert sum(shot.copy_of is not None for shot in shots.values()) == 1

    with Image.open(io.BytesIO(files[sideways[0]])) as picture:
        assert picture.getexif()[0x0112] == 6
        assert picture.height > picture.width, "stored upright it would not show anything"
    with Image.open(io.BytesIO(files[cut_off[0]])) as picture, pytest.raises(OSError, match="truncated"):
        picture.load()


@every_model
def test_a_dropped_folder_is_whole_described_and_never_written_again(
    model: DemoModel, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    assert drop_photographs(inbox, model)
    folder = inbox / model.key
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    assert set(before) == {*model.shots, "model.toml"}
    description = parse_description((folder / "model.toml").read_text(), "model.toml")
    assert description.model_type == model.model_type
    assert not drop_photographs(inbox, model)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["inbox"]


def test_a_drop_that_was_killed_half_way_is_done_again(tmp_path: Path) -> None:
    half = tmp_path / f"inbox.preparing-{PROBLEM_MODEL.key}"
    half.mkdir()
    (half / "half.jpg").write_bytes(b"half")
    assert drop_photographs(tmp_path / "inbox", PROBLEM_MODEL)
    assert not (tmp_path / "inbox" / PROBLEM_MODEL.key / "half.jpg").exists()


def test_the_demo_knows_nothing_of_a_real_account() -> None:
    found = demo_environment(
        {
            "PATH": "/bin",
            "LORA_HOME": "/h",
            "REPLICATE_API_TOKEN": "r8_real",
            "REPLICATE_BASE_URL": "https://api.replicate.com",
            "RUNPOD_API_KEY": "rpa_real",
            "DATABASE_URL": "postgresql://production",
            "AWS_SECRET_ACCESS_KEY": "real",
            "LORA_OBJECT_STORE": "s3://production",
            "LORA_AUTO_SUBMIT": "1",
            "DAGSTER_HOME": "/production",
        }
    )
    assert {name for name in found if not name.startswith("LORA_")} == {"PATH"}
    assert found["LORA_HOME"] == "/h"
    assert found["LORA_IMAGE_PROFILE"] == "demo"
    assert "LORA_OBJECT_STORE" not in found
    assert "LORA_AUTO_SUBMIT" not in found
