"""Lineage: from any id, what a thing was made from, what was made of it, and where that was live."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from lora_pipeline.access.callers import Caller
from lora_pipeline.api.answers import Answer
from lora_pipeline.api.authentication import KnownCaller, Viewer
from lora_pipeline.api.services import Services, Shared
from lora_pipeline.lineage.graph import Kind, Relation
from lora_pipeline.lineage.picture import lineage_svg
from lora_pipeline.lineage.tracing import Trace, scope_of, trace

router = APIRouter(prefix="/api/lineage", tags=["lineage"])

AnyId = Annotated[
    str,
    Path(
        alias="id",
        min_length=1,
        max_length=2048,
        description="A photograph's SHA-256 (12 digits are enough of any hash), an image set, a training or its job, "
        "a version (user-50c:V3, owner/name:hash), a weights hash, an object's address, an old entry's id, a model.",
    ),
]
Direction = Annotated[
    Literal["both", "up", "down"],
    Query(description="What it was made from (`up`), what was made of it (`down`), or both."),
]


class LineageVersion(Answer):
    """A version that the id leads to."""

    id: str
    model: str
    version: str
    live: bool
    live_since: datetime | None
    pinned: bool
    weights: str
    weights_at: list[str]
    """Where they lie; never a signed address."""
    provider_version: str | None
    simulated: bool
    trained_at: datetime | None
    merged: list[str]
    """Versions that were merged into it."""


class LeftOut(Answer):
    """A photograph in a set that was not trained on it."""

    image_set: str
    image: str
    reasons: list[str]


class LineageNode(Answer):
    id: str
    kind: Kind
    label: str
    facts: dict[str, Any]


class LineageEdge(Answer):
    """From what was there before to what was made of it."""

    source: str
    target: str
    kind: Relation
    facts: dict[str, Any]


class LineageAnswer(Answer):
    id: str
    meaning: str
    """What the id is."""
    starts: list[str]
    """The nodes that it means."""
    versions: list[LineageVersion]
    """Live ones first. Of a photograph: the versions that were trained with it."""
    left_out_of: list[LeftOut]
    nodes: list[LineageNode]
    edges: list[LineageEdge]


@router.get(
    "/{id:path}/picture",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}},
)
def lineage_picture(anything: AnyId, who: Viewer, services: Shared) -> Response:
    """The graph as a picture; it shows no photograph."""
    found = _trace(services, who, anything, "both")
    # An SVG opened by itself is a page: this one runs nothing and loads nothing.
    headers = {
        "Cache-Control": "private, max-age=60",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(lineage_svg(found), media_type="image/svg+xml", headers=headers)


@router.get("/{id:path}")
def lineage(
    anything: AnyId, caller: KnownCaller, services: Shared, direction: Direction = "both"
) -> LineageAnswer:
    """Nodes and edges around whatever the id means. A user's key reaches what belongs to their own models."""
    return LineageAnswer.model_validate(_trace(services, caller, anything, direction).as_json())


def _trace(services: Services, who: Caller | None, text: str, direction: str) -> Trace:
    """Without a caller the machine is the viewer's own: these pictures are never linked with a signature."""
    connections = services.connections
    user_id = None
    if who is not None and not who.is_admin:
        assert who.user_id is not None
        user_id = who.user_id
    up, down = direction != "down", direction != "up"
    return trace(connections.database, text, scope=scope_of(connections, user_id), up=up, down=down)
