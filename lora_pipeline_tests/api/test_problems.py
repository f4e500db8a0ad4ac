"""Errors: one shape for all of them, in words that help, without anything from the inside."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from lora_pipeline.api import problems
from lora_pipeline.api.app import create_app
from lora_pipeline.api.uploads import own_upload
from lora_pipeline.connections import Connections
from lora_pipeline.providers.protocol import ProviderUnavailable
from lora_pipeline.settings import Settings
from lora_pipeline_tests.api.serving import serving
from lora_pipeline_tests.api.steps import problem


@pytest.fixture
def database_address(sqlite_template: Path, tmp_path: Path) -> str:
    """Nothing here depends on the database."""
    shutil.copyfile(sqlite_template, tmp_path / "lora.sqlite3")
    return f"sqlite:///{tmp_path / 'lora.sqlite3'}"


def test_a_problem_names_no_signed_address() -> None:
    signed = "https://bucket.example/zip?X-Amz-Signature=s3cret"
    found = problems.problem_of(ProviderUnavailable(f"{signed} cannot be reached"))
    assert found is not None
    assert found.detail == "https://bucket.example/zip?*** cannot be reached"


def test_what_was_got_is_quoted_without_what_signed_it(anna: httpx.Client) -> None:
    body = {"modelName": "Anna", "imageUrls": [], "modelType": "https://a.example/b?signature=s3cret"}
    detail = problem(anna.post("/api/training/start", json=body), 422)
    assert "https://a.example/b?***" in detail
    assert "s3cret" not in detail


def test_a_webhooks_secret_path_is_not_logged_where_the_database_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        home=tmp_path,
        database_url="postgresql://nobody@127.0.0.1:1/nothing",
        runpod_api_key=SecretStr("rpa_test"),
        runpod_endpoint="endpoint",
    )
    secret = str(settings.runpod_webhook_secret)
    with serving(Connections(settings)) as anyone:
        answer = anyone.post(f"/webhooks/runpod/{secret}", json={"id": "job", "status": "COMPLETED"})
        assert "127.0.0.1" not in problem(anyone.get("/readyz"), 503)
    assert answer.status_code == 503
    assert "POST /webhooks/runpod/{secret}: the database does not answer" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("address", "own"),
    [
        (f"/api/uploads/{'a' * 64}/x.jpg", True),
        (f"https://lora.example/api/uploads/{'a' * 64}/x.jpg", True),
        (f"https://elsewhere.example/api/uploads/{'a' * 64}/x.jpg", False),
        (f"http://lora.example/api/uploads/{'a' * 64}/x.jpg", False),
        (f"https://lora.example/api/uploads/{'a' * 63}/x.jpg", False),
        (f"https://lora.example/else/{'a' * 64}/x.jpg", False),
    ],
)
def test_only_our_own_addresses_mean_uploads(address: str, own: bool) -> None:
    assert (own_upload(address, "https://lora.example") is not None) == own


def test_what_is_not_there_and_other_methods_are_told(anna: httpx.Client) -> None:
    for path in ("/", "/api", "/api/nothing", "/.env", "/docs/x"):
        assert "/docs" in problem(anna.get(path), 404), path
    assert problem(anna.put("/api/training/start"), 405) == "got PUT; expected POST"
    assert problem(anna.delete("/api/models"), 405) == "got DELETE; expected GET"


def test_head_is_answered_like_get_without_its_body(anna: httpx.Client, anyone: httpx.Client) -> None:
    """As monitors and download programs ask."""
    for path in ("/healthz", "/docs", "/api/models", "/openapi.json"):
        got, head = anna.get(path), anna.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-length"] == got.headers["content-length"], path
    assert anyone.head("/api/models").status_code == 401


def test_an_address_with_a_slash_too_many_is_no_address(anna: httpx.Client) -> None:
    """A redirect would name the scheme that a proxy speaks with us, and the key would follow it there."""
    for path in ("/api/models/", "/healthz/", "/docs/"):
        assert "/docs" in problem(anna.get(path), 404), path


def test_a_body_that_does_not_say_that_it_is_json_is_unsupported(anna: httpx.Client) -> None:
    body = b'{"modelName": "Anna", "imageUrls": []}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/jpeg"):
        detail = problem(anna.post("/api/training/start", content=body, headers={"Content-Type": kind}), 415)
        assert detail == f"got {kind}; expected a JSON body with Content-Type: application/json"
    for kind in ("application/json; charset=utf-8", "application/vnd.app+json"):
        found = anna.post("/api/training/start", content=body, headers={"Content-Type": kind})
        assert problem(found, 400).startswith("At least 5 training images are required; got 0"), kind


def test_what_is_wrong_is_said_with_what_was_got(anna: httpx.Client) -> None:
    def detail(content: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        return problem(anna.post("/api/training/start", content=content, headers=headers), 422)

    assert detail(b"") == "got no body; expected a JSON body with Content-Type: application/json"
    assert detail(b'{"modelName":').startswith("the body is no JSON: ")
    assert "body.modelType: Input should be 'person', 'object' or 'style'; got 'selfie'" in detail(
        b'{"modelName": "Anna", "modelType": "selfie", "imageUrls": []}'
    )
    assert "body.imageURLs: Extra inputs are not permitted" in detail(b'{"modelName": "A", "imageURLs": []}')
    long = detail(b'{"modelName": "' + b"x" * 5000 + b'", "imageUrls": []}')
    assert len(long) < 200, "what was got is not sent back whole"
    assert len(detail(b'{"modelName": "A", "imageUrls": [' + b"1," * 999 + b"1]}")) < 2000


def test_bodies_in_which_everything_may_be_left_out_may_be_left_out(
    anna: httpx.Client, admin: httpx.Client
) -> None:
    """As a button sends it: a POST and nothing else."""
    assert admin.post("/api/admin/training/bulk-sync").status_code == 202
    for choice in ("pin", "unpin", "rollback", "cancel", "retry"):
        assert "you have no model" in problem(anna.post(f"/api/models/user-42/{choice}"), 404), choice
    assert "no active model" in problem(anna.post("/api/training/sync-version"), 404)


def test_another_name_for_this_machine_is_a_problem_too(anna: httpx.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "[::1]", "", "127.0.0.1@evil.example"):
        assert "Host header" in problem(anna.get("/healthz", headers={"Host": host}), 400), host


def test_a_defect_tells_nothing_of_the_inside(connections: Connections) -> None:
    app = create_app(connections)

    @app.get("/defect")
    def defect() -> None:
        raise RuntimeError("postgresql://lora:hunter2@db/lora: SELECT * FROM api_keys")

    with serving(connections, app) as client:
        assert problem(client.get("/defect"), 500) == "this server has a defect; its log says more"


def test_every_error_that_has_a_status_is_there() -> None:
    """They are known by name: one that was renamed would be taken for a defect."""
    for name in problems._STATUS:
        module, _, error = name.rpartition(".")
        assert issubclass(getattr(import_module(module), error), Exception), name


def test_a_database_that_fails_is_told_without_its_statement(
    connections: Connections, anna: httpx.Client
) -> None:
    with connections.database.begin() as session:
        session.connection().exec_driver_sql("ALTER TABLE audit_log RENAME TO gone")
    anna.get("/api/models")
    with connections.database.begin() as session:
        session.connection().exec_driver_sql("ALTER TABLE user_models RENAME TO also_gone")
    detail = problem(anna.get("/api/models"), 503)
    assert "SELECT" not in detail
    assert "user_models" not in detail
