"""The OpenAPI description: committed, current, and kept to by every answer whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

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

from lora_pipeline.api.app import create_app
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings
from lora_pipeline.simulator.running import RunningSimulator
from lora_pipeline_tests.api.serving import key_for, serving, with_key
from lora_pipeline_tests.api.steps import finish, start, uploaded_urls

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
MODEL = "user-42"


def test_the_committed_description_is_current() -> None:
    """Where it is not: python -m lora_pipeline_tests.api.test_description."""
    assert json.loads(COMMITTED.read_text()) == description()


def description() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps(create_app(Connections(Settings(home=Path("/nowhere")))).openapi())
    )
    return found


@pytest.fixture
def served(connections: Connections, simulator: RunningSimulator, tmp_path: Path) -> Iterator[httpx.Client]:
    """An administrator's client of a server with one trained model."""
    connections.settings.api_rate = 1_000_000
    with (
        serving(connections) as anyone,
        with_key(anyone, key_for(connections, "42")) as anna,
        with_key(anyone, key_for(connections, None)) as admin,
    ):
        assert start(anna, uploaded_urls(anna, tmp_path))["modelId"] == MODEL
        finish(connections, simulator)
        yield admin


@pytest.mark.timeout(120)
def test_every_answer_keeps_to_the_description(served: httpx.Client) -> None:
    ask_everything(served, examples=4)


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_every_answer_keeps_to_the_description_however_long_one_asks(served: httpx.Client) -> None:
    ask_everything(served, examples=150)


def ask_everything(client: httpx.Client, examples: int) -> None:
    """Requests that fit the description and requests that do not, of a model that is there and of made-up ones."""
    schema = schemathesis.openapi.from_dict(description())
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # some operations take nothing that could be wrong
                ask(found.ok(), mode, client, examples)


def ask(operation: Any, mode: GenerationMode, client: httpx.Client, examples: int) -> None:
    headers = {"Authorization": client.headers["authorization"]}
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
        if asked % 2 and "model" in (case.path_parameters or {}):
            case.path_parameters["model"] = MODEL
        answer = case.call(base_url=str(client.base_url), headers=headers)
        case.validate_response(answer, checks=CHECKS)

    one()


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(description(), indent=1) + "\n")
