"""What an application's front end does from the first upload to a retrain and a sync, over real HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import select

from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import IdempotencyKey
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline.trainings.start_batch import start_ready
from lora_pipeline_tests.api.steps import finish, problem, progress, start, upload, uploaded_urls
from lora_pipeline_tests.fixtures.photographs import drop_photographs


def test_upload_start_poll_completed_resolve_retrain_sync(
    connections: Connections,
    simulator: RunningSimulator,
    anna: httpx.Client,
    anyone: httpx.Client,
    tmp_path: Path,
) -> None:
    urls = uploaded_urls(anna, tmp_path / "photos", 6)
    started = start(anna, urls)
    model_id = started["modelId"]
    assert started["triggerWord"] == "user42"
    assert started["trainingId"] in {one["id"] for one in simulator.paid()["trainings"]}
    assert progress(anna, model_id)["status"] == "starting"

    finish(connections, simulator)
    done = progress(anna, model_id)
    assert (done["status"], done["progress"], done["estimated"]) == ("completed", 100, False)
    assert done["model"]["served"]["version"] == "V1"

    resolved = anna.get(f"/api/models/{model_id}/resolve").json()
    assert resolved["triggerWord"] == "user42"
    assert resolved["weightsState"] == "verified"
    weights = anyone.get(resolved["weightsUrl"])
    assert weights.status_code == 200
    assert len(weights.content) == int(weights.headers["content-length"]) > 1000

    again = start(anna, [*urls[:4], *uploaded_urls(anna, tmp_path / "more", 2, first=10)])
    assert again["modelId"] == model_id
    assert again["triggerWord"] == "user42"
    assert again["trainingId"] != started["trainingId"]
    under_way = progress(anna, model_id)
    assert under_way["status"] == "starting"
    assert under_way["model"]["served"]["version"] == "V1", (
        "the old version serves until the new one is verified"
    )
    finish(connections, simulator)
    assert anna.get(f"/api/models/{model_id}/resolve").json()["version"] == "V2"
    images = anna.get(f"/api/models/{model_id}/images").json()
    assert images["usable"] == 6
    assert anyone.get(images["contactSheetUrl"]).headers["content-type"] == "image/jpeg"

    synced = anna.post("/api/training/sync-version", json={"modelId": model_id}).json()
    assert synced["updateNeeded"] is False
    assert synced["currentVersion"] == synced["latestVersion"]
    assert simulator.paid()["count"] == 2


def test_a_start_that_is_sent_again_with_its_key_starts_nothing_twice(
    simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    body = {"modelName": "Anna", "imageUrls": uploaded_urls(anna, tmp_path)}
    headers = {"Idempotency-Key": "from the button"}
    first = anna.post("/api/training/start", json=body, headers=headers)
    second = anna.post("/api/training/start", json=body, headers=headers)
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    other = anna.post("/api/training/start", json={**body, "modelName": "Berta"}, headers=headers)
    assert "another request" in problem(other, 422)
    assert start(anna, body["imageUrls"])["trainingId"] == first.json()["trainingId"], "without a key neither"
    assert simulator.paid()["count"] == 1


def test_a_button_that_is_pressed_many_times_at_once_trains_once(
    connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: start(anna, urls), range(6)))
    assert len({(answer["modelId"], answer["trainingId"]) for answer in answers}) == 1
    assert answers[0]["trainingId"] is not None
    finish(connections, simulator)
    assert start_ready(connections, lease=None).done == ()
    assert simulator.paid()["count"] == 1


def test_a_start_whose_server_died_over_it_is_answered_when_it_is_sent_again(
    connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    body = {"modelName": "Anna", "imageUrls": uploaded_urls(anna, tmp_path)}
    headers = {"Idempotency-Key": "from the button"}
    first = anna.post("/api/training/start", json=body, headers=headers).json()
    finish(connections, simulator)
    with connections.database.begin() as session:
        # As it is where the server dies between the training and its answer.
        row = session.scalars(select(IdempotencyKey)).one()
        row.answer, row.claimed_until = None, datetime.now(UTC) + timedelta(minutes=1)
    waiting = anna.post("/api/training/start", json=body, headers=headers)
    assert "is being answered" in problem(waiting, 409)
    with connections.database.begin() as session:
        session.scalars(select(IdempotencyKey)).one().claimed_until = datetime.now(UTC)
    again = anna.post("/api/training/start", json=body, headers=headers)
    assert again.status_code == 201
    assert again.json()["trainingId"] == first["trainingId"]
    assert again.json()["status"] == "completed"
    assert simulator.paid()["count"] == 1
    assert start(anna, body["imageUrls"])["trainingId"] != first["trainingId"], "a new request is a retrain"


def test_another_set_of_images_waits_for_the_training_under_way(
    simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path, 6)
    start(anna, urls)
    refused = anna.post("/api/training/start", json={"modelName": "Anna", "imageUrls": urls[:5]})
    assert "is being trained on other images" in problem(refused, 409)
    assert simulator.paid()["count"] == 1


def test_four_images_are_refused_in_the_words_that_front_ends_know(
    anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path, 4)
    refused = anna.post("/api/training/start", json={"modelName": "Anna", "imageUrls": urls})
    assert problem(refused, 400).startswith("At least 5 training images are required")
    assert anna.get("/api/models").json() == {"models": []}, "nothing was made"


def test_five_uploads_of_which_one_is_no_image_are_too_few(anna: httpx.Client, tmp_path: Path) -> None:
    photographs = drop_photographs(tmp_path, 4)
    (tmp_path / "notes.jpg").write_text("no image at all")
    answer = upload(anna, [*photographs, tmp_path / "notes.jpg"])
    verdicts = {image["name"]: image["verdict"] for image in answer["images"]}
    assert verdicts.pop("notes.jpg") == "excluded"
    assert set(verdicts.values()) == {"included"}
    assert len(answer["imageUrls"]) == 4
    every = [image["url"] for image in answer["images"]]
    refused = anna.post("/api/training/start", json={"modelName": "Anna", "imageUrls": every})
    detail = problem(refused, 400)
    assert detail.startswith("At least 5 training images are required. 4 usable: add 1 more. Left out: 1 ")


def test_while_the_provider_is_away_a_start_is_kept_and_not_lost(
    connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path)
    simulator.fault("any", "answer", status=500, times=50)
    asked = start(anna, urls)
    assert asked["trainingId"] is None
    assert asked["status"] == "pending"
    assert progress(anna, asked["modelId"])["status"] == "pending"

    simulator.reset()
    assert start_ready(connections, lease=None).done == (asked["modelId"],)
    assert progress(anna, asked["modelId"])["status"] == "starting"
