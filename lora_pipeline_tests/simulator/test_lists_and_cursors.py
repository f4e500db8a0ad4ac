"""Lists: newest first, a hundred a page, with cursors that stand while new trainings arrive."""

from __future__ import annotations

import httpx
from replicate.client import Client
from replicate.pagination import paginate

from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.simulator.conftest import CREATE, order


def seed(simulator: RunningSimulator, count: int) -> list[str]:
    made = simulator.control("trainings", count=count)
    return [training["id"] for training in made["trainings"]]


def walk(api: httpx.Client, url: str) -> list[list[str]]:
    pages = []
    following: str | None = url
    while following:
        page = api.get(following).json()
        pages.append([item["id"] for item in page["results"]])
        following = page["next"]
    return pages


def test_two_hundred_and_fifty_trainings_come_in_three_pages_newest_first(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    ids = seed(simulator, 250)
    pages = walk(api, "/v1/trainings")
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [identity for page in pages for identity in page] == ids[::-1]


def test_the_client_walks_the_pages_by_their_absolute_addresses(
    simulator: RunningSimulator, client: Client
) -> None:
    ids = seed(simulator, 250)
    seen = [item.id for page in paginate(client.trainings.list) for item in page.results]
    assert seen == ids[::-1]


def test_previous_leads_back_to_the_page_before(simulator: RunningSimulator, api: httpx.Client) -> None:
    seed(simulator, 250)
    first = api.get("/v1/trainings").json()
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    assert first["previous"] is None
    assert third["next"] is None
    assert api.get(third["previous"]).json()["results"] == second["results"]
    assert api.get(second["previous"]).json()["results"] == first["results"]


def test_a_training_created_during_the_walk_repeats_and_hides_nothing(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    ids = seed(simulator, 150)
    first = api.get("/v1/trainings").json()
    seed(simulator, 3)
    rest = api.get(first["next"]).json()["results"]
    assert [item["id"] for item in rest] == ids[:50][::-1]


def test_a_lagging_list_hides_a_new_training_that_get_knows(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.settings(list_lag_s=30.0)
    made = api.post(CREATE, json=order()).json()
    assert api.get("/v1/trainings").json()["results"] == []
    assert api.get(f"/v1/trainings/{made['id']}").status_code == 200
    simulator.advance(31)
    assert len(api.get("/v1/trainings").json()["results"]) == 1


def test_a_training_that_vanished_is_gone_from_get_and_list_but_was_paid(
    simulator: RunningSimulator, api: httpx.Client
) -> None:
    simulator.fault("trainings.create", "quirk", quirk={"vanishes_after_s": 1800.0, "stuck_in": "starting"})
    made = api.post(CREATE, json=order()).json()
    assert api.get(f"/v1/trainings/{made['id']}").json()["status"] == "starting"
    simulator.advance(1900)
    assert api.get(f"/v1/trainings/{made['id']}").status_code == 404
    assert api.get("/v1/trainings").json()["results"] == []
    assert simulator.paid()["count"] == 1


def test_versions_are_listed_newest_first_in_pages(simulator: RunningSimulator, api: httpx.Client) -> None:
    hashes = [f"{n:064x}" for n in range(60)]
    simulator.control("versions", models={"acme/many": hashes})
    pages = walk(api, "/v1/models/acme/many/versions")
    assert [len(page) for page in pages] == [25, 25, 10]
    assert [text for page in pages for text in page] == hashes[::-1]
    assert api.get("/v1/models/acme/many").json()["latest_version"]["id"] == hashes[-1]


def test_all_open_trainings_can_be_ended_at_once(simulator: RunningSimulator, api: httpx.Client) -> None:
    seed(simulator, 120)
    assert simulator.control("trainings/end") == {"ended": 120}
    assert {item["status"] for item in api.get("/v1/trainings").json()["results"]} == {"succeeded"}
    assert simulator.paid()["paid_twice"] == {}
