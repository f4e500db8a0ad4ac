"""The OpenAPI description: committed, current, readable, and kept to by every answer whatever is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lora_pipeline.callbacks.listing import list_callbacks
from lora_pipeline.connections import Connections
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.api.every_route import body_of, description
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import finish, start, uploaded_urls

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NEVER_DONE = {"POST /webhooks/replicate", "POST /webhooks/runpod/{secret}"}
"""What made-up requests cannot be let in to: it wants a provider's signature."""


def test_the_committed_description_is_current() -> None:
    """Where it is not: python -m lora_pipeline_tests.api.test_description."""
    assert json.loads(COMMITTED.read_text()) == description()


@dataclass(frozen=True)
class Served:
    """A server with a model that was trained twice, and one client of each kind."""

    admin: httpx.Client
    user: httpx.Client
    nobody: httpx.Client
    known: Mapping[str, Any]
    """Parameter or field → a value that means something there."""


@pytest.fixture
def served(connections: Connections, simulator: RunningSimulator, tmp_path: Path) -> Iterator[Served]:
    connections.settings.api_rate = 1_000_000
    with (
        serving(connections) as anyone,
        with_key(anyone, key_for(connections, "42")) as anna,
        with_key(anyone, key_for(connections, None)) as admin,
    ):
        urls = uploaded_urls(anna, tmp_path, 6)
        for images in (urls, urls[:5]):
            model = start(anna, images)["modelId"]
            finish(connections, simulator)
        yield Served(admin, anna, anyone, _known(connections, admin, model, urls))


def _known(connections: Connections, admin: httpx.Client, model: str, urls: list[str]) -> dict[str, Any]:
    images = admin.get(f"/api/models/{model}/images").json()
    run = admin.get(f"/api/models/{model}/trainings").json()["trainings"][0]["run"]
    weights = urlsplit(admin.get(f"/api/models/{model}/resolve").json()["weightsUrl"])
    return {
        "model": model,
        "modelId": model,
        "version": "V1",
        "run": run,
        "run_id": run,
        "image_set_id": images["imageSet"],
        "sha256": images["images"][0]["sha256"],
        "name": images["images"][0]["name"],
        "number": 2,
        "id": model,
        "job_id": admin.post("/api/admin/training/bulk-sync", json={"dryRun": True}).json()["jobId"],
        "event_id": list_callbacks(connections.database, "all")[0]["event_id"],
        "imageUrls": urls,
        "userId": "42",
        "onlyFrom": "V2",
        "at": "2026-01-01",
        # Of the one path that only a signed link opens.
        **dict(parse_qsl(weights.query)),
    }


@pytest.mark.timeout(120)
def test_every_answer_keeps_to_the_description(served: Served) -> None:
    every = {f"{method.upper()} {path}" for path, found in description()["paths"].items() for method in found}
    assert every - ask_everything(served.admin, served.known, examples=2) == NEVER_DONE


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_every_answer_keeps_to_the_description_however_long_one_asks(served: Served) -> None:
    for client, examples in ((served.admin, 50), (served.user, 15), (served.nobody, 5)):
        ask_everything(client, served.known, examples)


def ask_everything(client: httpx.Client, known: Mapping[str, Any], examples: int) -> set[str]:
    """Requests that fit the description and requests that do not, about what is there and about what is made up.

    The operations that were reached: which answered, at least once, that they had done something, or could not.
    """
    schema = schemathesis.openapi.from_dict(description())
    reached = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # some operations take nothing that could be wrong
                if _REACHED & ask(operation, mode, client, known, examples):
                    reached.add(f"{operation.method.upper()} {operation.path}")
    return reached


_REACHED = frozenset({200, 201, 202, 409})
"""A conflict is an answer too: a training that has ended cannot be cancelled."""


def ask(
    operation: Any,
    mode: GenerationMode,
    client: httpx.Client,
    known: Mapping[str, Any],
    examples: int,
) -> set[int]:
    """Ask one operation; the status codes it answered with."""
    statuses: set[int] = set()
    headers = {name: value for name, value in client.headers.items() if name == "authorization"}
    asked = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 2:
            about_what_is_there(case, known)
        answer = case.call(base_url=str(client.base_url), headers=headers)
        case.validate_response(answer, checks=CHECKS)
        statuses.add(answer.status_code)

    one()
    return statuses


def about_what_is_there(case: Any, known: Mapping[str, Any]) -> None:
    for place in (case.path_parameters, case.query):
        place.update({name: value for name, value in known.items() if name in place})
    for one in case.operation.query:
        if one.name in known and (one.is_required or case.operation.path.startswith("/weights/")):
            case.query[one.name] = known[one.name]
    if isinstance(case.body, dict):
        _, fields = body_of(case.operation.schema.raw_schema, case.operation.definition.raw)
        case.body.update({name: known[name] for name in fields if name in known})


@pytest.mark.parametrize("database_address", ["sqlite"], indirect=True)
def test_docs_are_one_page_of_every_operation_that_loads_nothing(anyone: httpx.Client) -> None:
    answer = anyone.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = answer.text
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|//cdn", text)
    for path, operations in description()["paths"].items():
        for operation in operations.values():
            assert f'<article id="{operation["operationId"]}">' in text, path
    assert "imageUrls" in text
    assert "null where the training waits (see <code>message</code>)" in text
    assert "`" not in text
    assert f"curl -X POST &#x27;{str(anyone.base_url).rstrip('/')}/api/training/start&#x27;" in text
    assert anyone.get("/redoc").status_code == 404


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(description(), indent=1) + "\n")
