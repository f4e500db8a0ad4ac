"""Lineage over real HTTP: the same answer, the picture, and nothing of anybody else's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote
from xml.etree import ElementTree

import httpx
import pytest

from lora_pipeline.database.tables import TrainingRun
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import problem
from lora_pipeline_tests.lineage.conftest import KEY, OTHER, STYLE, Story

# That nothing is told to others is shown on both databases where it is decided: here by one of them.
pytestmark = pytest.mark.parametrize("story", ["postgresql"], indirect=True)


@pytest.fixture(scope="session")
def anyone(story: Story) -> Iterator[httpx.Client]:
    story.connections.settings.api_rate = 1_000_000
    with serving(story.connections) as client:
        yield client


@pytest.fixture(scope="session")
def admin(story: Story, anyone: httpx.Client) -> Iterator[httpx.Client]:
    with with_key(anyone, key_for(story.connections, None)) as client:
        yield client


@pytest.fixture(scope="session")
def other(story: Story, anyone: httpx.Client) -> Iterator[httpx.Client]:
    """Has the key of the user `OTHER`, who shares one photograph with `KEY`."""
    with with_key(anyone, key_for(story.connections, OTHER)) as client:
        yield client


def path_of(text: str) -> str:
    return f"/api/lineage/{quote(text, safe='/:')}"


def test_the_answer_is_the_operations(story: Story, admin: httpx.Client) -> None:
    shared = story.photographs[0]
    answer = admin.get(path_of(shared))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = story.trace(shared).as_json()
    assert [node["id"] for node in body["nodes"]] == [node["id"] for node in expected["nodes"]]
    assert body["edges"] == json.loads(json.dumps(expected["edges"]))
    assert [one["version"] for one in body["versions"]] == [one["version"] for one in expected["versions"]]
    assert body["versions"][0]["liveSince"]
    up = admin.get(path_of(f"{KEY}:V1"), params={"direction": "up"}).json()
    assert {node["kind"] for node in up["nodes"]} == {"image", "set", "zip", "run", "version"}
    (left_out,) = admin.get(path_of(story.left_out)).json()["leftOutOf"]
    assert left_out["imageSet"].startswith("set:")


def test_any_id_fits_into_the_path(story: Story, admin: httpx.Client) -> None:
    address = story.trace(f"{STYLE} V7").lineage.versions[0].facts["weights_at"][0]
    https = address.replace("s3://storyboard-user-files/", "https://storyboard-user-files.s3.amazonaws.com/")
    for text in (f"{STYLE} V7", "style_1_vV7", address, https, f"object:{address}"):
        for tail in ("", "/picture"):
            assert admin.get(path_of(text) + tail).status_code == 200, text
    assert "Write the one" in problem(admin.get(path_of("1")), 409)
    assert "nothing is known" in problem(admin.get(path_of("nobody")), 404)
    assert admin.get(path_of("x" * 3000)).status_code == 422
    assert admin.get(path_of(KEY), params={"direction": "sideways"}).status_code == 422


def test_of_anybody_elses_nothing_exists(
    story: Story, anyone: httpx.Client, admin: httpx.Client, other: httpx.Client
) -> None:
    foreign = [node["id"] for node in admin.get(path_of(KEY)).json()["nodes"]]
    foreign = [one for one in foreign if story.photographs[0] not in one]
    run: TrainingRun = story.run(1)
    foreign += [str(run.training_id), run.token, str(run.zip_sha256), f"{KEY}:V1", KEY, story.photographs[1]]
    foreign += ["style_1_vV7", f"user:{KEY}", story.left_out[:12]]
    for text in foreign:
        assert "nothing is known" in problem(other.get(path_of(text)), 404), text
    assert anyone.get(path_of(KEY)).status_code == 401
    assert other.get(path_of(f"{KEY}:V1") + "/picture").status_code == 404

    own = other.get(path_of(story.photographs[0]))
    assert [one["model"] for one in own.json()["versions"]] == [OTHER]
    assert KEY not in own.text
    assert KEY not in other.get(path_of(story.photographs[0]) + "/picture").text
    assert "file://" not in own.text, "where the server has its folders"
    assert other.get(path_of(OTHER)).status_code == 200


def test_the_picture_is_an_image_that_shows_no_photograph_and_runs_nothing(
    story: Story, anyone: httpx.Client, admin: httpx.Client
) -> None:
    answer = admin.get(path_of(KEY) + "/picture")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    tags = {element.tag.partition("}")[2] for element in ElementTree.fromstring(answer.text).iter()}
    assert tags <= {"svg", "title", "rect", "g", "path", "polygon", "text"}
    assert not re.search(r"href|url\(|<script|on\w+=", answer.text)
    assert anyone.get(path_of(KEY) + "/picture").status_code == 200, "from this machine, as Dagster links it"

    story.connections.settings.public_url = "http://localhost.example"
    assert anyone.get(path_of(KEY) + "/picture").status_code == 401
    assert admin.get(path_of(KEY) + "/picture").status_code == 200
    story.connections.settings.public_url = None
