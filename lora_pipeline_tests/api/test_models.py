"""One model over HTTP: its images, choices about its versions, and what becomes of its trainings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.api.steps import finish, problem, progress, start, upload, uploaded_urls
from lora_pipeline_tests.fixtures.photographs import drop_photographs


def test_versions_are_chosen_pinned_released_and_rolled_back(
    connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path, 6)
    model = f"/api/models/{start(anna, urls)['modelId']}"
    finish(connections, simulator)
    start(anna, urls[:5])
    finish(connections, simulator)

    def post(choice: str, **body: str) -> dict[str, Any]:
        answer = anna.post(f"{model}/{choice}", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert [one["version"] for one in anna.get(f"{model}/versions").json()["versions"]] == ["V2", "V1"]
    back = post("rollback", reason="blurred")
    assert (back["version"], back["previous"], back["pinned"]) == ("V1", "V2", True)
    assert anna.get(f"{model}/resolve").json()["version"] == "V1"
    assert post("activate", version="2")["version"] == "V2"
    assert post("pin")["pinned"] is True
    assert post("unpin")["pinned"] is False
    assert "has no version" in problem(anna.post(f"{model}/activate", json={"version": "V9"}), 404)

    history = anna.get(f"{model}/history").json()["history"]
    assert history[0]["version"] == "V2"
    assert {entry["actor"] for entry in history} == {"finalisation", "key:42"}
    assert any(entry["reason"] == "blurred" and entry["rolledBack"] for entry in history)
    assert anna.get(f"{model}/history", params={"at": "2020-01-01"}).json()["history"] == []
    assert "expected a day" in problem(anna.get(f"{model}/history", params={"at": "yesterday"}), 422)

    link = anna.get(f"{model}/versions/V1/weights").json()["url"]
    file = anna.get(link).headers
    assert file["content-disposition"].endswith('V1.safetensors"')
    assert file["cache-control"] == "private, no-store"


def test_images_are_taken_out_put_back_and_captioned(
    connections: Connections, anna: httpx.Client, tmp_path: Path
) -> None:
    urls = uploaded_urls(anna, tmp_path, 6)
    model_id = start(anna, urls)["modelId"]
    path = f"/api/models/{model_id}/images"
    assert anna.get(path).json()["state"] == "ready"

    out = anna.patch(path, json={"name": "photo 00.jpg", "choice": "exclude"}).json()
    assert (out["state"], out["usable"]) == ("draft", 5)
    (image,) = (one for one in out["images"] if one["name"] == "photo 00.jpg")
    assert (image["verdict"], image["chosenByHand"]) == ("excluded", True)
    back = anna.patch(path, json={"name": "photo 00.jpg", "choice": "include", "caption": "in a suit"}).json()
    (image,) = (one for one in back["images"] if one["name"] == "photo 00.jpg")
    assert (image["verdict"], image["caption"]) == ("included", "in a suit")
    assert "has no image" in problem(anna.patch(path, json={"name": "../x", "choice": "exclude"}), 422)

    added = upload(anna, drop_photographs(tmp_path / "more", 1, first=20), modelId=model_id)
    assert added["images"][0]["verdict"] == "included"
    assert anna.get(path).json()["usable"] == 7


def test_uploads_and_images_of_a_set_are_shown_by_links_that_need_no_key(
    anna: httpx.Client, anyone: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("no image at all")
    sent = upload(anna, [*drop_photographs(tmp_path, 5), tmp_path / "notes.jpg"])
    *shown, notes = sent["images"]
    assert notes["previewUrl"] is None
    # As front ends do that keep the address they show.
    model_id = start(anna, [image["previewUrl"] for image in shown])["modelId"]
    listed = anna.get(f"/api/models/{model_id}/images").json()["images"]
    assert {image["sha256"] for image in listed} == {image["sha256"] for image in shown}
    for image in (*shown, *listed):
        picture = anyone.get(image["previewUrl"])
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/jpeg")
    another = shown[0]["previewUrl"].replace(shown[0]["sha256"], shown[1]["sha256"])
    assert problem(anyone.get(another), 403)
    assert problem(anyone.get(shown[0]["url"]), 401)
    assert anna.get(shown[0]["url"]).content == anyone.get(shown[0]["previewUrl"]).content


def test_a_training_is_cancelled_and_tried_again(
    simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    model_id = start(anna, uploaded_urls(anna, tmp_path))["modelId"]
    model = f"/api/models/{model_id}"
    assert "cannot be retried" in problem(anna.post(f"{model}/retry", json={}), 409)
    assert anna.post(f"{model}/cancel", json={}).json()["outcome"] == "canceled"
    assert progress(anna, model_id)["status"] == "canceled"
    again = anna.post(f"{model}/retry", json={}).json()
    assert again["newAttempt"] is True
    assert again["trainingId"]
    assert progress(anna, model_id)["status"] == "starting"
    assert [one["attempt"] for one in anna.get(f"{model}/trainings").json()["trainings"]] == [2, 1]
    assert problem(anna.post(f"{model}/cancel", json={"run": 999}), 404)


def test_a_training_that_was_cancelled_too_late_is_not_called_complete_until_it_is_served(
    connections: Connections, simulator: RunningSimulator, anna: httpx.Client, tmp_path: Path
) -> None:
    model_id = start(anna, uploaded_urls(anna, tmp_path))["modelId"]
    simulator.advance(7200)  # it has ended well before the cancel comes
    anna.post(f"/api/models/{model_id}/cancel")
    finish(connections, simulator)
    late = progress(anna, model_id)
    assert (late["status"], late["model"]["served"]) == ("canceled", None)
    assert "It is registered as V1 and not served" in late["error"]
    anna.post(f"/api/models/{model_id}/activate", json={"version": "V1"})
    served = progress(anna, model_id)
    assert (served["status"], served["error"]) == ("completed", None)


def test_a_name_is_one_model_and_another_name_another(anna: httpx.Client, tmp_path: Path) -> None:
    urls = uploaded_urls(anna, tmp_path)
    first, second = start(anna, urls), start(anna, urls, name="Anna in winter")
    assert (first["modelId"], second["modelId"]) == ("user-42", "user-42-2")
    assert first["triggerWord"] != second["triggerWord"]
    body = {"modelName": "Anna", "modelType": "style", "imageUrls": urls}
    assert "is a person" in problem(anna.post("/api/training/start", json=body), 409)


def test_a_sync_over_http_repairs_what_the_provider_has_newer(
    connections: Connections,
    simulator: RunningSimulator,
    anna: httpx.Client,
    admin: httpx.Client,
    tmp_path: Path,
) -> None:
    model_id = start(anna, uploaded_urls(anna, tmp_path))["modelId"]
    finish(connections, simulator)
    simulator.control("versions", models={"acme/user-42-selfie-lora": ["b" * 64]})

    (user,) = admin.get("/api/admin/training/sync-status", params={"deep": True}).json()["users"]
    assert (user["status"], user["needsSync"], user["totalVersionsOnReplicate"]) == ("Needs Sync", True, 2)
    synced = anna.post("/api/training/sync-version", json={"modelId": model_id}).json()
    assert (synced["updateNeeded"], synced["updated"]) == (True, True)
    assert synced["currentVersion"] == synced["latestVersion"] != synced["previousVersion"]
    again = anna.post("/api/training/sync-version").json()  # the button: the user's active model
    assert again["modelId"] == model_id
    assert (again["updated"], again["currentVersion"]) == (False, synced["currentVersion"])


def test_the_model_that_a_user_completed_last_is_the_one_that_button_report_and_resolve_mean(
    connections: Connections,
    simulator: RunningSimulator,
    anna: httpx.Client,
    admin: httpx.Client,
    tmp_path: Path,
) -> None:
    urls = uploaded_urls(anna, tmp_path, 6)

    def meant() -> set[str]:
        (reported,) = admin.get("/api/admin/training/sync-status").json()["users"]
        button = anna.post("/api/training/sync-version").json()
        resolved = admin.get("/api/models/42/resolve").json()
        return {reported["modelKey"], button["modelId"], resolved["modelId"]}

    cancelled = start(anna, urls, name="Never trained")["modelId"]
    anna.post(f"/api/models/{cancelled}/cancel")
    first = start(anna, urls, name="Anna")["modelId"]
    finish(connections, simulator)
    assert meant() == {first}
    second = start(anna, urls, name="Anna in winter")["modelId"]
    assert meant() == {first}
    finish(connections, simulator)
    assert meant() == {second}
    start(anna, urls[:5], name="Anna")
    finish(connections, simulator)
    assert meant() == {first}
    anna.post(f"/api/models/{first}/rollback")
    assert meant() == {first}


def test_a_bulk_sync_answers_with_its_job_and_later_with_its_report(
    connections: Connections,
    simulator: RunningSimulator,
    anna: httpx.Client,
    admin: httpx.Client,
    tmp_path: Path,
) -> None:
    start(anna, uploaded_urls(anna, tmp_path))
    finish(connections, simulator)
    simulator.control("versions", models={"acme/user-42-selfie-lora": ["b" * 64]})
    accepted = admin.post("/api/admin/training/bulk-sync", json={"filter": "user-*", "deep": True})
    assert accepted.status_code == 202
    job = f"/api/admin/training/bulk-sync/{accepted.json()['jobId']}"
    deadline = time.monotonic() + 20
    while admin.get(job).json()["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended = admin.get(job).json()
    assert (ended["state"], ended["report"]["outcomes"]) == ("completed", {"updated": 1})
    assert problem(admin.get("/api/admin/training/bulk-sync/none"), 404)
