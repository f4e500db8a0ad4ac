"""`/docs`: the OpenAPI description as one page to read.

Drawn here, without a script and without anything that a browser would have to fetch from elsewhere: the usual
viewers of such descriptions are loaded from other people's servers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from lora_pipeline.api.reference_style import STYLE
from lora_pipeline.api.services import Shared

router = APIRouter(include_in_schema=False)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_METHODS = ("get", "post", "put", "patch", "delete")

Schema = Mapping[str, Any]


@router.get("/docs")
def reference(request: Request, services: Shared) -> HTMLResponse:
    """The page."""
    base = services.connections.settings.resolved_public_url
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(page(request.app.openapi(), base), headers=headers)


def page(description: Schema, base: str) -> str:
    """The whole page for an OpenAPI description of the server at `base`. Pure."""
    by_tag: dict[str, list[str]] = defaultdict(list)
    links: dict[str, list[str]] = defaultdict(list)
    for path, operations in description["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                tag = operation.get("tags", ["other"])[0]
                by_tag[tag].append(_operation(description, method, path, operation, base))
                links[tag].append(_link(method, path, operation))
    sections = "".join(
        f'<section><h2 id="{escape(tag)}">{escape(tag)}</h2>{"".join(parts)}</section>'
        for tag, parts in by_tag.items()
    )
    contents = "".join(f"<h3>{escape(tag)}</h3>{''.join(found)}" for tag, found in links.items())
    title = escape(description["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: HTTP</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><nav><a class="title" href="#top">{title}</a>{contents}</nav><main id="top"><h1>{title}</h1>'
        f"<p>{escape(description['info'].get('description', ''))}</p>{_INTRODUCTION}{sections}</main></body></html>"
    )


_INTRODUCTION = (
    "<p>Send a key with each request: <code>Authorization: Bearer KEY</code>. Make one with <code>lora-pipeline "
    "api-keys create NAME --user USER</code>, or <code>--admin</code>. Every error is "
    "<code>application/problem+json</code>; its <code>detail</code> says what was got, what was expected, and what to "
    'do. For programs: <a href="/openapi.json">openapi.json</a>.</p>'
)


def _link(method: str, path: str, operation: Schema) -> str:
    name = escape(operation["operationId"])
    return f'<a href="#{name}"><b class="{method}">{method}</b> {_breakable(path)}</a>'


def _operation(description: Schema, method: str, path: str, operation: Schema, base: str) -> str:
    body = _body(description, operation)
    parts = [
        f'<article id="{escape(operation["operationId"])}">',
        f'<h3><b class="{method}">{method}</b> <code>{_breakable(path)}</code></h3>',
        f"<p>{_prose(operation.get('description', operation.get('summary', '')))}</p>",
    ]
    parameters = [
        one for one in operation.get("parameters", []) if one["name"] not in ("expires", "signature")
    ]
    if parameters:
        parts.append("<h4>Parameters</h4>" + _table(_parameter_rows(description, parameters)))
    if body is not None:
        parts.append("<h4>Body</h4>" + _table(_field_rows(description, body[1])))
    parts += _answers(description, operation["responses"])
    example = _example(description, method, base + path, operation, body)
    parts.append(f"<details><summary>Ask for it</summary><pre>{escape(example)}</pre></details></article>")
    return "".join(parts)


def _body(description: Schema, operation: Schema) -> tuple[str, Schema] | None:
    """Media type and schema of the body."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        return kind, _resolved(description, content.get("schema", {}))
    return None


def _answers(description: Schema, responses: Mapping[str, Schema]) -> Iterator[str]:
    """Each answer but the errors, which are all alike."""
    shown: set[str] = set()
    for status, answer in responses.items():
        if status == "default":
            continue
        kind, content = next(iter(answer.get("content", {"no body": {}}).items()))
        schema = _resolved(description, content.get("schema", {}))
        yield f"<h4>Answer {escape(status)} <small>{escape(kind)}</small></h4>"
        if answer["description"] != "Successful Response":
            yield f"<p>{_prose(answer['description'])}</p>"
        name = schema.get("title", "")
        if name in shown:
            yield "<p>As above.</p>"
        elif schema.get("properties"):
            shown.add(name)
            yield _table(_field_rows(description, schema))


def _parameter_rows(description: Schema, parameters: list[Schema]) -> Iterator[tuple[str, str, str]]:
    for one in parameters:
        needed = one["in"] if one.get("required") else f"{one['in']}, optional"
        yield one["name"], _type(description, one.get("schema", {})), _about(needed, one)


def _field_rows(description: Schema, schema: Schema, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    needed = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        optional = "" if name in needed else "optional"
        if "default" in field and field["default"] not in (None, []):
            optional += f", {json.dumps(field['default'])} where it is left out"
        yield "· " * depth + name, _type(description, field), _about(optional, field)
        inner = _object_in(description, field)
        if inner is not None and depth < 3:
            yield from _field_rows(description, inner, depth + 1)


def _about(needed: str, one: Schema) -> str:
    return ". ".join(filter(None, (needed, one.get("description", ""))))


def _object_in(description: Schema, field: Schema) -> Schema | None:
    """The object that a field, or each item of it, is."""
    for one in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        found = _resolved(description, one.get("items", one))
        if found.get("properties"):
            return found
    return None


def _type(description: Schema, schema: Schema) -> str:
    """In a few words: `text`, `list of text`, `"person" or "style"`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(description, one) for one in schema["anyOf"]))
    found = _resolved(description, schema)
    if "enum" in found or "const" in found:
        return " or ".join(json.dumps(value) for value in found.get("enum", [found.get("const")]))
    if found.get("type") == "array":
        return f"list of {_type(description, found.get('items', {}))}"
    if found.get("format") in _FORMATS:
        return _FORMATS[found["format"]]
    return _WORDS.get(str(found.get("type")), str(found.get("type", "anything")))


_WORDS = {"string": "text", "integer": "whole number", "null": "null", "boolean": "true or false"}
_FORMATS = {"date-time": "time", "binary": "file"}


def _resolved(description: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = description
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _example(
    description: Schema, method: str, url: str, operation: Schema, body: tuple[str, Schema] | None
) -> str:
    """A command for a shell."""
    asked = [one for one in operation.get("parameters", []) if one["in"] == "query" and one.get("required")]
    query = "&".join(f"{one['name']}={one['name'].upper()}" for one in asked)
    lines = [f"curl -X {method.upper()} '{url}{'?' + query if query else ''}'"]
    if "security" in operation:
        lines.append('-H "Authorization: Bearer $KEY"')
    if body is not None and body[0] == "multipart/form-data":
        lines.append("-F 'images=@photo.jpg'")
    elif body is not None:
        needed = body[1].get("required") or list(body[1].get("properties", {}))[:1]
        fields = {name: _sample(description, body[1]["properties"][name]) for name in needed}
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(fields)}'"]
    return " \\\n  ".join(lines)


def _sample(description: Schema, schema: Schema) -> Any:
    found = _resolved(description, next(iter(schema.get("anyOf", [schema]))))
    if "default" in schema:
        return schema["default"]
    if "enum" in found:
        return found["enum"][0]
    if found.get("type") == "array":
        return [_sample(description, found.get("items", {}))]
    return {"integer": 1, "boolean": True}.get(str(found.get("type")), "…")


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    cells = (
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{_prose(about)}</td></tr>"
        for name, kind, about in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _prose(text: str) -> str:
    """Text in which names stand between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _breakable(path: str) -> str:
    return escape(path).replace("/", "/<wbr>")
