"""Contact sheets and health over HTTP, on both databases and a real folder."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest
import uvicorn

from lora_pipeline.api.app import create_app
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ImageSet
from lora_pipeline.settings import Settings
from lora_pipeline_tests.fixtures.pipeline import add_model

_PICTURE = b"\xff\xd8" + bytes(range(256)) * 8000


@contextmanager
def serving(connections: Connections) -> Iterator[httpx.Client]:
    """A client of a real server over these connections."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(create_app(connections), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=30) as client:
            yield client
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def client(connections: Connections) -> Iterator[httpx.Client]:
    with serving(connections) as client:
        yield client


def add_set(connections: Connections, key: str | None) -> int:
    now = datetime.now(UTC)
    model_id = add_model(connections.database)
    with connections.database.begin() as session:
        image_set = ImageSet(
            model_id=model_id, contact_sheet_key=key, findings=[], created_at=now, updated_at=now
        )
        session.add(image_set)
        session.flush()
        return image_set.id


def test_a_contact_sheet_is_served_whole_and_only_to_this_browser(
    connections: Connections, client: httpx.Client
) -> None:
    connections.store.put_bytes("sets/1/sheet.jpg", _PICTURE)
    answer = client.get(f"/contact-sheets/{add_set(connections, 'sets/1/sheet.jpg')}.jpg")

    assert answer.status_code == 200
    assert answer.content == _PICTURE
    assert answer.headers["content-type"] == "image/jpeg"
    assert "private" in answer.headers["cache-control"]


def problem(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    return str(body["detail"])


def test_what_is_not_there_is_a_problem_that_says_what(
    connections: Connections, client: httpx.Client
) -> None:
    unknown = client.get("/contact-sheets/12345.jpg")
    assert unknown.status_code == 404
    assert "image set 12345 does not exist" in problem(unknown)

    draft = add_set(connections, None)
    assert "no contact sheet yet" in problem(client.get(f"/contact-sheets/{draft}.jpg"))


def test_a_deleted_contact_sheet_is_not_found(connections: Connections, client: httpx.Client) -> None:
    image_set = add_set(connections, "sets/1/gone.jpg")
    assert "has been deleted" in problem(client.get(f"/contact-sheets/{image_set}.jpg"))


def test_a_number_that_is_none_is_refused_as_a_problem(client: httpx.Client) -> None:
    answer = client.get("/contact-sheets/..%2Fsecret.jpg")
    assert answer.status_code in (404, 422)
    assert problem(answer)


def test_another_name_for_this_machine_is_refused(client: httpx.Client) -> None:
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/healthz", headers={"Host": "localhost:8010"}).status_code == 200


def test_health_is_fine_with_a_current_database(client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("url", ["postgresql://a:hunter2@127.0.0.1:1/b", "sqlite:////dev/null/no.sqlite3"])
def test_health_says_that_the_database_is_not_there(url: str) -> None:
    unreachable = Connections(Settings(database_url=url))
    with serving(unreachable) as client:
        answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "DATABASE_URL" in problem(answer)
    assert "hunter2" not in answer.text


def test_health_names_the_command_for_an_old_schema(tmp_path: object) -> None:
    old = Connections(Settings(database_url=f"sqlite:///{tmp_path}/new.sqlite3"))
    with serving(old) as client:
        answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "lora-pipeline db upgrade" in problem(answer)
