"""Reading Replicate's JSON: whatever arrives, the outcome is a record or a named problem."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_pipeline.providers.answers import (
    DEFAULT_RETRY_AFTER_S,
    MAX_RETRY_AFTER_S,
    Answer,
    retry_after,
)
from lora_pipeline.providers.protocol import JobState, ProviderError, TrainingJob
from lora_pipeline.providers.replicate_answers import (
    MalformedTraining,
    parse_training,
    parse_version_item,
    training_input_schema,
)
from lora_pipeline.providers.replicate_refusals import (
    creation_outcome,
    refusal,
    told,
)

SUCCEEDED = {
    "completed_at": "2024-12-29T16:39:07.017584Z",
    "created_at": "2024-12-29T16:11:12.069000Z",
    "data_removed": False,
    "error": None,
    "id": "yhyxz6wh8nrme0cm2cqr2yxkqc",
    "input": {"steps": 1500, "lora_rank": 16, "input_images": "https://store.example/images.zip"},
    "logs": "",
    "metrics": {"predict_time": 1674.940257378, "total_time": 1674.948584},
    "output": {
        "version": "acme/user_flux:925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738",
        "weights": "https://replicate.delivery/xezq/nAhW/trained_model.tar",
    },
    "started_at": "2024-12-29T16:11:12.077327Z",
    "status": "succeeded",
    "urls": {"get": "https://api.replicate.com/v1/trainings/y"},
    "version": "e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497",
}
FIELDS = [*SUCCEEDED, "destination", "model"]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["succeeded", "2024-12-29T16:39:07.017584Z", "0001-01-01T00:00:00+23:59", "a" * 200]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def answer(status: int, document: object = None, **headers: str) -> Answer:
    body = b"" if document is None else json.dumps(document).encode()
    return Answer(status, headers, body)


def outcome_of(raw: object) -> TrainingJob | MalformedTraining:
    """The training, or the one exception that may be raised."""
    try:
        return parse_training(raw)
    except MalformedTraining as error:
        return error


def test_a_recorded_training_is_read_whole() -> None:
    assert parse_training(SUCCEEDED) == TrainingJob(
        id="yhyxz6wh8nrme0cm2cqr2yxkqc",
        state=JobState.SUCCEEDED,
        provider_status="succeeded",
        input_reference="https://store.example/images.zip",
        trainer_version="e440909d3512c31646ee2e0c7d6f6f4923224863a6a10c494606e79fb5844497",
        output_version="acme/user_flux:925da5f563c07bb620a3bf3cc2185079b1cfc7d62f47a9c234e67dbc36eab738",
        output_weights="https://replicate.delivery/xezq/nAhW/trained_model.tar",
        error=None,
        logs="",
        predict_seconds=1674.940257378,
        created_at=datetime(2024, 12, 29, 16, 11, 12, 69000, UTC),
        started_at=datetime(2024, 12, 29, 16, 11, 12, 77327, UTC),
        completed_at=datetime(2024, 12, 29, 16, 39, 7, 17584, UTC),
    )


def test_times_of_a_creation_with_nine_digits_are_read() -> None:
    job = parse_training({"id": "a", "status": "starting", "created_at": "2023-09-08T16:32:56.990893084Z"})
    assert job.created_at == datetime(2023, 9, 8, 16, 32, 56, 990893, UTC)


@given(raw=json_values)
def test_anything_at_all_is_a_training_or_malformed(raw: object) -> None:
    assert isinstance(outcome_of(raw), TrainingJob | MalformedTraining)


@given(
    changed=st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1, max_size=4),
    inner=st.dictionaries(
        st.sampled_from(["version", "weights", "predict_time", "input_images"]), json_values
    ),
    place=st.sampled_from(["output", "metrics", "input"]),
)
def test_any_field_may_be_anything(changed: dict[str, object], inner: dict[str, object], place: str) -> None:
    raw = {**SUCCEEDED, place: inner, **changed}
    job = outcome_of(raw)
    if isinstance(job, MalformedTraining):
        assert job.job_id in (None, raw["id"])
        return
    assert job.id == raw["id"]
    assert job.provider_status == raw["status"]
    assert job.predict_seconds is None or 0 <= job.predict_seconds < float("inf")
    for moment in (job.created_at, job.started_at, job.completed_at):
        assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"id": 7}, "id is a number"),
        ({"id": " "}, "id is a text"),
        ({"status": None}, "status is null"),
        ({"output": ["x"]}, "output is a list"),
        ({"output": {"version": 5}}, "output.version is a number"),
    ],
)
def test_what_is_malformed_is_named(broken: dict[str, object], named: str) -> None:
    with pytest.raises(MalformedTraining, match=named):
        parse_training({**SUCCEEDED, **broken})


@given(raw=json_values)
def test_any_item_is_a_version_or_none(raw: object) -> None:
    parse_version_item(raw)
    parse_version_item({"id": "0" * 64, "created_at": raw})


@given(raw=json_values)
def test_any_schema_is_read_or_none(raw: object) -> None:
    for version in (
        {"openapi_schema": raw},
        {"openapi_schema": {"components": {"schemas": {"TrainingInput": raw}}}},
        {
            "openapi_schema": {
                "components": {"schemas": {"Input": {"properties": {"a": raw, "b": {"allOf": raw}}}}}
            }
        },
    ):
        found = training_input_schema(version)
        assert found is None or all(isinstance(value, dict) for value in found["properties"].values())


def test_enumerations_that_a_schema_refers_to_are_copied_in() -> None:
    schemas = {
        "TrainingInput": {
            "required": ["input_images"],
            "properties": {
                "input_images": {"type": "string", "format": "uri"},
                "lora_type": {
                    "allOf": [{"$ref": "#/components/schemas/lora_type"}],
                    "default": "subject",
                    "description": "What is learnt.",
                },
            },
        },
        "lora_type": {"type": "string", "enum": ["subject", "style"], "description": "An enumeration."},
        "Input": {"properties": {"prompt": {"type": "string"}}},
    }
    assert training_input_schema({"openapi_schema": {"components": {"schemas": schemas}}}) == {
        "type": "object",
        "required": ["input_images"],
        "properties": {
            "input_images": {"type": "string", "format": "uri"},
            "lora_type": {
                "type": "string",
                "enum": ["subject", "style"],
                "default": "subject",
                "description": "What is learnt.",
            },
        },
    }


THROTTLED = "Request was throttled. … Your rate limit resets in ~30s."


@pytest.mark.parametrize(
    ("document", "header", "seconds"),
    [
        ({"retry_after": 5, "detail": THROTTLED}, "9", 5),
        ({"detail": THROTTLED}, "9", 30),
        ({"detail": "Too many."}, "9", 9),
        ({"retry_after": None}, "Wed, 21 Oct 2026 07:28:00 GMT", DEFAULT_RETRY_AFTER_S),
        ({}, "", DEFAULT_RETRY_AFTER_S),
        ({"retry_after": 86_400}, "", MAX_RETRY_AFTER_S),
        ({"retry_after": -1}, "", DEFAULT_RETRY_AFTER_S),
        ({"retry_after": True}, "", DEFAULT_RETRY_AFTER_S),
        ({"retry_after": "12"}, "", 12),
        ({"retry_after": float("nan")}, "4", 4),
    ],
)
def test_the_wait_is_read_from_the_body_its_words_or_the_header(
    document: dict[str, object], header: str, seconds: float
) -> None:
    assert retry_after(answer(429, document, **{"retry-after": header})) == seconds


@given(document=json_values, status=st.integers(200, 599), header=st.text(max_size=10))
def test_every_answer_to_a_creation_is_a_training_or_a_provider_error(
    document: object, status: int, header: str
) -> None:
    given_answer = answer(status, document, **{"retry-after": header, "content-type": header})
    outcome: object
    try:
        outcome = creation_outcome(given_answer, "a creation", ["secret"])
    except ProviderError as error:
        outcome = error
    assert "a creation" in str(outcome) or (isinstance(outcome, TrainingJob) and 200 <= status < 300)
    assert isinstance(refusal(given_answer, "a read"), ProviderError)
    assert 0 <= retry_after(given_answer) <= MAX_RETRY_AFTER_S


def test_what_the_provider_said_stays_short() -> None:
    assert len(told(answer(422, {"detail": "x" * 100_000}))) < 600
