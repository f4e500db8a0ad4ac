"""Every operation of the OpenAPI description as a request, with given values for what it takes.

Made from the description, so that a new route is asked by the tests that ask every route; a parameter that nobody
has thought of fails them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lora_pipeline.api.app import create_app
from lora_pipeline.connections import Connections
from lora_pipeline.settings import Settings

NAMES_SOMETHING = frozenset(
    {
        "model",
        "modelId",
        "version",
        "run",
        "run_id",
        "image_set_id",
        "sha256",
        "number",
        "id",
        "job_id",
        "event_id",
    }
    | {"imageUrls", "userId", "user", "secret"}
)
"""Parameters and fields that say which thing a request is about. Values for them are the caller's to give."""

HARMLESS: Mapping[str, Any] = {
    "idempotency-key": "once",
    "at": "2026-01-01",
    "direction": "both",
    "undelivered": "true",
    "deep": False,
    "remembered": "true",
    "dryRun": True,
    "filter": "*",
    "name": "photo 00.jpg",
    "choice": "exclude",
    "caption": "in a suit",
    "reason": "a test",
    "modelName": "Anna",
    "modelType": "person",
    "gender": "woman",
}
"""The rest, with a value that is taken."""
LEFT_OUT = frozenset({"expires", "signature", "onlyFrom"})
_PHOTOGRAPH = ("images", ("a.jpg", b"no image", "image/jpeg"))


@dataclass(frozen=True)
class Operation:
    """One request of the description."""

    method: str
    path: str
    named: frozenset[str]
    """Which of NAMES_SOMETHING it takes."""
    guarded: bool
    """Whether the description says that it wants a key."""
    request: Mapping[str, Any] = field(repr=False)
    """What httpx is given."""

    def ask(self, client: httpx.Client) -> httpx.Response:
        return client.request(self.method, **self.request)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def description() -> dict[str, Any]:
    """The application's own, as it is now."""
    found = create_app(Connections(Settings(home=Path("/nowhere")))).openapi()
    described: dict[str, Any] = json.loads(json.dumps(found))
    return described


def operations(described: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Operation]:
    """Every operation with these values, by the names of NAMES_SOMETHING."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield _operation(described, values, method.upper(), path, operation)


def _operation(
    described: Mapping[str, Any],
    values: Mapping[str, Any],
    method: str,
    path: str,
    operation: Mapping[str, Any],
) -> Operation:
    by_place: dict[str, list[str]] = {"path": [], "query": [], "header": []}
    for one in operation.get("parameters", []):
        by_place[one["in"]].append(one["name"])
    media_type, fields = body_of(described, operation)
    taken = {name for names in (*by_place.values(), fields) for name in names} - {"images"}
    unknown = taken - NAMES_SOMETHING - HARMLESS.keys() - LEFT_OUT
    assert not unknown, f"{method} {path} takes {unknown}: say in every_route what it is"
    given = {**HARMLESS, **values}
    url = path
    for name in by_place["path"]:
        url = url.replace(f"{{{name}}}", str(given[name]))
    request: dict[str, Any] = {
        "url": url,
        "params": {name: given[name] for name in by_place["query"] if name in given},
        "headers": {name: given[name] for name in by_place["header"]},
    }
    body = {name: given[name] for name in fields if name in given}
    if media_type == "application/json":
        request["json"] = body
    elif media_type is not None:
        request |= {"files": [_PHOTOGRAPH], "data": body}
    return Operation(method, path, frozenset(taken & NAMES_SOMETHING), "security" in operation, request)


def body_of(described: Mapping[str, Any], operation: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """Media type and fields of an operation's body."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        if "$ref" in schema:
            schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return media_type, list(schema["properties"])
    return None, []
