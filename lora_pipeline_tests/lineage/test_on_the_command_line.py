"""`lora-pipeline lineage`: readable at 80 columns, JSON for programs, a picture on demand."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image as Picture

from lora_pipeline.lineage.drawing import fitted, width_of
from lora_pipeline.lineage.layout import Box, place
from lora_pipeline_tests.cli.conftest import Ended, Run, home, run
from lora_pipeline_tests.lineage.conftest import KEY, STYLE, Story

__all__ = ["home", "run"]


one_database = pytest.mark.parametrize("story", ["sqlite"], indirect=True)


@pytest.fixture
def told(story: Story, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on the story's database."""
    settings = story.connections.settings
    monkeypatch.setenv("LORA_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", settings.resolved_database_url)
    return lambda *arguments: run("lineage", *arguments)


@one_database
def test_a_photograph_says_first_which_versions_were_trained_with_it(story: Story, told: Run) -> None:
    ended: Ended = told(story.photographs[0][:12])
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0] == f"{story.photographs[0][:12]} is the SHA-256 of a photograph."
    assert lines[2] == "Versions trained with it"
    assert f"  {KEY} V2  live since" in ended.out
    assert f"  {KEY} V1  live until" in ended.out
    assert "└── image set" in ended.out
    assert ended.out.count("in it as 000") == 3
    version = next(line for line in lines if line.startswith(f"  {KEY} V2"))
    assert lines[lines.index(version) + 1].endswith(".safetensors"), "an address stays in one line"


@one_database
def test_a_photograph_that_was_left_out_says_so(story: Story, told: Run) -> None:
    out = told(story.left_out).out
    assert "No version was trained with it." in out
    assert "left out (too small): not trained on" in out
    assert "No version" not in told(story.photographs[0], "--up").out, "what was made of it was not asked for"


@one_database
def test_a_version_tells_up_and_down_what_it_was_made_from_and_into(told: Run) -> None:
    both, up, down = (told(f"{KEY}:V1", *options).out for options in ((), ("--up",), ("--down",)))
    assert "Made from" in both
    assert "What was made of it" in both
    assert ("5 photographs trained on" in up, "model user-50c" in up) == (True, False)
    assert ("photographs trained on" in down, "model user-50c  trigger word" in down) == (False, True)
    assert "Everything made for it" in told(KEY).out
    assert "failed" in told(STYLE).out


@one_database
def test_a_program_gets_json(story: Story, told: Run) -> None:
    answer = told(f"{KEY}:V2", "--json").json
    assert answer["starts"] == story.trace(f"{KEY}:V2").as_json()["starts"]
    assert {edge["kind"] for edge in answer["edges"]} >= {"member", "packed", "trained_on", "registered"}
    ids = {node["id"] for node in answer["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in answer["edges"])


@one_database
def test_an_unknown_and_an_ambiguous_id_are_wrong_use(told: Run) -> None:
    unknown, ambiguous = told("0" * 64), told("1")
    assert (unknown.code, ambiguous.code) == (2, 2)
    assert "nothing is known under" in unknown.err
    assert "set:1" in ambiguous.err


@one_database
def test_a_picture_is_written_as_svg_or_png(told: Run, tmp_path: Path) -> None:
    svg, png = tmp_path / "a.svg", tmp_path / "a.PNG"
    assert told(KEY, "--picture", str(svg)).code == 0
    assert told(KEY, "--picture", str(png)).out == ""
    root = ElementTree.fromstring(svg.read_text())
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert f"Lineage of model {KEY}" in texts
    assert "LIVE" in texts
    assert "5 photographs" in texts
    drawn = Picture.open(io.BytesIO(png.read_bytes()))
    assert drawn.width == 2 * int(root.attrib["width"])
    assert len(drawn.getcolors(1_000_000) or []) > 50
    assert told(KEY, "--picture", str(tmp_path / "a.jpg")).code == 2
    both = told(KEY, "--json", "--picture", str(svg))
    assert json.loads(both.out)["starts"] == [f"model:{KEY}"]


def test_boxes_never_overlap_and_lines_go_around_them() -> None:
    boxes = [Box(f"{column}-{row}", column, 100, 30 + 10 * row) for column in range(5) for row in range(6)]
    lines = [(f"0-{row}", f"1-{row}") for row in range(6)]
    lines += [("0-0", "4-5"), ("0-5", "4-0"), ("1-2", "3-3")]
    layout = place(boxes, lines)
    for column in range(5):
        spans = sorted((layout.at[b.id][1], b.height) for b in boxes if b.column == column)
        for (top, height), (following, _) in pairwise(spans):
            assert top + height < following
    for points in layout.lines.values():
        for x, y in points[1:-1]:
            for box in boxes:
                left, top = layout.at[box.id]
                inside = left < x < left + box.width and top < y < top + box.height
                assert not inside


def test_texts_are_shortened_to_fit() -> None:
    assert fitted("short", 100, 11) == "short"
    for middle in (False, True):
        shorter = fitted("s3://bucket/loras/user-50c/0123456789abcdef.safetensors", 120, 11, middle=middle)
        assert width_of(shorter, 11) <= 120
        assert "…" in shorter
    assert fitted("abcdefghijklmnop", 60, 11, middle=True).endswith("p")
