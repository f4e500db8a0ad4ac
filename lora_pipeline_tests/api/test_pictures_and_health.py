"""Pictures and health over HTTP, on both databases and a real folder."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from lora_pipeline.access.links import link_signer
from lora_pipeline.api.app import create_app
from lora_pipeline.connections import Connections
from lora_pipeline.database.sessions import POSTGRES_CONNECT_S
from lora_pipeline.database.tables import ImageSet
from lora_pipeline.settings import Settings, SettingsError
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.fixtures.pipeline import add_model, add_packed_run
from lora_pipeline_tests.trainings.steps import set_run

_PICTURE = b"\xff\xd8" + bytes(range(256)) * 8000


@pytest.fixture
def client(anyone: httpx.Client) -> httpx.Client:
    return anyone


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


def test_a_server_that_others_can_reach_is_probed_by_whatever_name_it_has(connections: Connections) -> None:
    connections.settings.api_host = "0.0.0.0"  # the test still listens on loopback
    connections.settings.public_url = "https://loras.example"
    with serving(connections) as anyone:
        for host in ("loras.example", "10.1.2.3:8010", "localhost"):
            assert anyone.get("/healthz", headers={"Host": host}).status_code == 200, host
        assert "https://loras.example/api/training/start" in anyone.get("/docs").text


def test_ready_wants_the_providers_that_are_used_and_no_other(connections: Connections) -> None:
    connections.settings.replicate_api_token = None
    connections.settings.provider = "runpod"
    with serving(connections) as anyone:
        assert "RUNPOD_API_KEY" in problem(anyone.get("/readyz"))
    connections.settings.runpod_api_key = SecretStr("rpa_test")
    connections.settings.runpod_endpoint = "abc"
    with serving(connections) as anyone:
        assert "LORA_OBJECT_STORE=s3://" in problem(anyone.get("/readyz")), (
            "its worker reads and writes a bucket"
        )
    connections.settings.provider = "replicate"
    connections.settings.replicate_api_token = SecretStr("r8_test")
    with serving(connections) as anyone:
        assert anyone.get("/readyz").status_code == 200


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


@pytest.mark.deep
def test_health_does_not_wait_for_a_database_that_takes_connections_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/c"
        with serving(Connections(Settings(database_url=address))) as client:
            assert "DATABASE_URL" in problem(client.get("/healthz", timeout=POSTGRES_CONNECT_S + 5))


def test_health_names_the_command_for_an_old_schema(tmp_path: object) -> None:
    old = Connections(Settings(database_url=f"sqlite:///{tmp_path}/new.sqlite3"))
    with serving(old) as client:
        answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "lora-pipeline db upgrade" in problem(answer)


def test_a_loss_curve_is_a_picture_that_fits_on_dagsters_pages(
    connections: Connections, client: httpx.Client
) -> None:
    run_id = add_packed_run(connections.database, connections.store)
    set_run(connections.database, run_id, loss_history=[[step, 1 / (step + 1)] for step in range(100)])
    answer = client.get(f"/loss-curves/{run_id}.png")
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(BytesIO(answer.content))
    assert picture.width <= 600
    assert len(picture.getcolors(1000) or []) > 2
    assert client.get(f"/loss-curves/{run_id + 1}.png").status_code == 404


def test_where_others_can_reach_the_server_a_sheet_needs_a_key_or_a_signed_link(
    connections: Connections,
) -> None:
    connections.settings.public_url = "http://localhost.example"
    connections.store.put_bytes("sets/1/sheet.jpg", _PICTURE)
    path = f"/contact-sheets/{add_set(connections, 'sets/1/sheet.jpg')}.jpg"
    with serving(connections) as anyone:
        assert "key" in problem(anyone.get(path))
        assert anyone.get("/metrics").status_code == 401
        with with_key(anyone, key_for(connections, "user-50c")) as owner:
            assert owner.get(path).status_code == 200
        with with_key(anyone, key_for(connections, "43")) as other:
            assert other.get(path).status_code == 404
            assert other.get("/metrics").status_code == 403
        with with_key(anyone, key_for(connections, None)) as admin:
            assert admin.get("/metrics").status_code == 200

        signer = link_signer(connections.database, connections.now())
        link = signer.sign(path, connections.now())
        assert anyone.get(link.address).content == _PICTURE
        ended = signer.sign(path, connections.now() - timedelta(hours=1))
        for refused in (
            ended.address,
            link.address[:-1] + ("A" if link.address[-1] != "A" else "B"),
            link.address.replace(path, path.replace("/1.", "/2.")) if "/1." in path else link.address + "x",
            link.address.replace("expires=1", "expires=2"),
            f"{path}?expires=99999999999&signature=",
            f"{path}?expires=nan&signature=x",
        ):
            assert anyone.get(refused).status_code == 403, refused


def test_a_server_that_answers_everybody_must_not_be_reachable_by_everybody(tmp_path: Path) -> None:
    for settings in (
        Settings(home=tmp_path, api_open=True, api_host="0.0.0.0"),
        Settings(home=tmp_path, api_open=True, public_url="https://loras.example"),
    ):
        with pytest.raises(SettingsError, match="LORA_API_OPEN"):
            create_app(Connections(settings))


def test_of_two_names_in_one_request_both_must_be_ours(connections: Connections) -> None:
    with serving(connections) as anyone:
        for names, status in ((("127.0.0.1",), 200), (("127.0.0.1", "rebound.example"), 400)):
            with closing(HTTPConnection("127.0.0.1", anyone.base_url.port)) as asking:
                asking.putrequest("GET", "/healthz", skip_host=True)
                for name in names:
                    asking.putheader("Host", name)
                asking.endheaders()
                assert asking.getresponse().status == status


def test_open_on_this_machine_no_key_is_needed(connections: Connections) -> None:
    connections.settings.api_open = True
    with serving(connections) as anyone:
        assert anyone.get("/api/models").json() == {"models": []}
        assert anyone.get("/api/admin/training/sync-status").status_code == 200


def test_whom_a_proxy_on_this_machine_asks_for_is_not_its_user(connections: Connections) -> None:
    connections.settings.api_open = True
    sheet = f"/contact-sheets/{add_set(connections, 'sets/1/sheet.jpg')}.jpg"
    connections.store.put_bytes("sets/1/sheet.jpg", _PICTURE)
    with serving(connections) as anyone:
        for path in ("/api/models", "/metrics", sheet):
            assert anyone.get(path).status_code == 200, path
            for forwarded in ("203.0.113.5", "127.0.0.1, 203.0.113.5", "unknown"):
                answer = anyone.get(path, headers={"X-Forwarded-For": forwarded})
                assert answer.status_code == 401, (path, forwarded)


def test_metrics_tell_what_is_open_owed_and_asked(connections: Connections, client: httpx.Client) -> None:
    add_packed_run(connections.database, connections.store)
    client.get("/contact-sheets/7.jpg")
    lines = client.get("/metrics").text.splitlines()
    assert 'lora_open_trainings{state="packed"} 1' in lines
    assert "lora_owed_events 0" in lines
    assert 'lora_models{verdict="behind"} 0' in lines
    route = 'method="GET",route="/contact-sheets/{image_set_id}.jpg",status="404"'
    assert f"lora_http_requests_total{{{route}}} 1" in lines
    for line in lines:
        assert line.startswith("# ") or re.fullmatch(r"[a-z_]+(\{.*\})? [0-9.e+-]+", line), line
