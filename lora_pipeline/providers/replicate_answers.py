"""Replicate's JSON read into our records. Pure: no HTTP here; what refuses is read in `replicate_refusals`.

The client's own models are not used for answers: they cannot parse `aborted`, nor an output
version without its owner, and one such item loses a whole page of a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lora_pipeline.providers.answers import kind_word, seconds_or_none, text_or_none
from lora_pipeline.providers.protocol import (
    JobState,
    ProviderVersion,
    TrainingJob,
)
from lora_pipeline.providers.secrets import scrubbed

_STATES = {
    "starting": JobState.QUEUED,
    "processing": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "canceled": JobState.CANCELED,
    "aborted": JobState.ABORTED,
}
_HASH = re.compile(r"[0-9a-f]{64}")
_REF = "#/components/schemas/"


class MalformedTraining(ValueError):
    """An item that is no training as the provider describes them; the message says what is wrong with it."""

    def __init__(self, job_id: str | None, problem: str) -> None:
        super().__init__(f"training {job_id or 'without an id'}: {problem}")
        self.job_id = job_id
        """The id, where that at least could be read."""


def parse_training(raw: object) -> TrainingJob:
    """A training as the provider shows it. Raises MalformedTraining and nothing else, whatever `raw` is.

    What decides is strict (id, status, output); what only informs is None where it makes no sense.
    """
    if not isinstance(raw, Mapping):
        raise MalformedTraining(None, f"got {kind_word(raw)}, expected an object")
    job_id = raw.get("id")
    if not isinstance(job_id, str) or not job_id.strip() or len(job_id) > 128:
        raise MalformedTraining(
            None, f"its id is {kind_word(job_id)}, expected a text of at most 128 characters"
        )
    status = raw.get("status")
    if not isinstance(status, str):
        raise MalformedTraining(job_id, f"its status is {kind_word(status)}, expected a text")
    version, weights = _output(job_id, raw.get("output"))
    given, metrics = raw.get("input"), raw.get("metrics")
    return TrainingJob(
        id=job_id,
        state=_STATES.get(status, JobState.UNKNOWN),
        provider_status=status,
        input_reference=text_or_none(given.get("input_images")) if isinstance(given, Mapping) else None,
        trainer_version=text_or_none(raw.get("version")),
        output_version=version,
        output_weights=weights,
        error=_error(raw.get("error")),
        logs=text_or_none(raw.get("logs")),
        predict_seconds=seconds_or_none(metrics.get("predict_time"))
        if isinstance(metrics, Mapping)
        else None,
        created_at=_time(raw.get("created_at")),
        started_at=_time(raw.get("started_at")),
        completed_at=_time(raw.get("completed_at")),
    )


def _output(job_id: str, output: object) -> tuple[str | None, str | None]:
    if output is None:
        return None, None
    if not isinstance(output, Mapping):
        raise MalformedTraining(job_id, f"its output is {kind_word(output)}, expected an object or null")
    for name in ("version", "weights"):
        if not isinstance(output.get(name), str | None):
            raise MalformedTraining(
                job_id, f"its output.{name} is {kind_word(output[name])}, expected a text or null"
            )
    return output.get("version") or None, output.get("weights") or None


def _error(error: object) -> str | None:
    """The provider's words without signed addresses: "could not fetch …" quotes the dataset's whole."""
    if error is None or isinstance(error, str):
        return scrubbed(error) if error else None
    try:
        return scrubbed(json.dumps(error))
    except (TypeError, ValueError, RecursionError):
        return kind_word(error)


def _time(value: object) -> datetime | None:
    """A time with up to nine digits of a second, as a creation answers; UTC where it names no zone."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def parse_version_item(raw: object) -> ProviderVersion | None:
    """One version of a list; None for what is no version."""
    version = raw.get("id") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(version, str) or not _HASH.fullmatch(version):
        return None
    return ProviderVersion(version, _time(raw.get("created_at")))


def training_input_schema(version: Mapping[str, Any]) -> dict[str, Any] | None:
    """`properties` and `required` of a trainer's input, from its version; None where it takes no training.

    The generator of these schemas puts enumerations beside the input and refers to them; they are copied in.
    """
    found: Any = version.get("openapi_schema")
    for step in ("components", "schemas"):
        found = found.get(step) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    for name in ("TrainingInput", "Input"):
        properties = found[name].get("properties") if isinstance(found.get(name), Mapping) else None
        if isinstance(properties, Mapping) and properties:
            required = found[name].get("required")
            return {
                "type": "object",
                "required": [str(item) for item in required] if isinstance(required, list) else [],
                "properties": {
                    str(key): _without_refs(value, found)
                    for key, value in properties.items()
                    if isinstance(value, Mapping)
                },
            }
    return None


def _without_refs(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """One property with what it refers to merged in, one level deep: enumerations refer to nothing themselves."""
    parts = schema.get("allOf")
    merged: dict[str, Any] = {}
    for part in [*(parts if isinstance(parts, list) else []), schema]:
        if not isinstance(part, Mapping):
            continue
        target = str(part.get("$ref", ""))
        referred = schemas.get(target.removeprefix(_REF)) if target.startswith(_REF) else None
        if isinstance(referred, Mapping):
            merged.update(referred)
        merged.update({key: value for key, value in part.items() if key not in ("allOf", "$ref")})
    return merged
